"""Hooks that our tools add to a run."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from swin_dense.engine.session import check_dataset_files
from swin_dense.registry import HOOKS


@HOOKS.register_module()
class CheckFilesHook(Hook):
    """Before the first iteration, check that every file the built data sets name is there."""

    priority = "VERY_HIGH"

    def before_run(self, runner: Runner) -> None:
        """Check the data sets of the loops that exist by now.

        Raises:
            UserError: files are missing.
        """
        for name in ("train", "val", "test"):
            loop = getattr(runner, f"_{name}_loop", None)
            loader = getattr(loop, "dataloader", None)
            if loader is not None:
                check_dataset_files(f"{name}_dataloader", loader.dataset)
