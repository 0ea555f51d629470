"""Hooks that our tools add to a run."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from swin_dense.engine.session import check_dataset_files
from swin_dense.engine.val_loss import (
    PREFIX,
    check_losses,
    keep_single_values,
    loss_loader,
    mean_losses,
)
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


@HOOKS.register_module()
class ValLossHook(Hook):
    """Add the model's own losses to the metrics, as ``val/loss``, ``val/loss_cls`` and so on.

    Args:
        split: "val", with each validation, or "test".
    """

    priority = "HIGHEST"  # the hooks that log metrics and keep the best checkpoint come after

    def __init__(self, split: str = "val") -> None:
        self._split = split
        self._loader: Any = None

    def before_train(self, runner: Runner) -> None:
        """Make sure that there will be losses.

        Raises:
            UserError: the data or the model gives none.
        """
        self._prepare(runner)

    def before_val(self, runner: Runner) -> None:
        """As :meth:`before_train`, for a validation without training."""
        if self._split == "val":
            self._prepare(runner)

    def before_test(self, runner: Runner) -> None:
        """As :meth:`before_train`, for a test."""
        if self._split == "test":
            self._prepare(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Put the losses into ``metrics``."""
        if self._split == "val" and metrics is not None:
            metrics.update(self._measure(runner))

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Put the losses into ``metrics``."""
        if self._split == "test" and metrics is not None:
            metrics.update(self._measure(runner))

    def _prepare(self, runner: Runner) -> None:
        if self._loader is not None:
            return
        processor = runner.log_processor
        processor.mean_pattern = keep_single_values(processor.mean_pattern)
        loader = loss_loader(runner.cfg, self._split)
        check_losses(_bare(runner), loader.dataset, self._split, fp16=self._fp16(runner))
        self._loader = loader

    def _measure(self, runner: Runner) -> dict[str, float]:
        means = mean_losses(
            _bare(runner), self._loader, total=len(self._loader), fp16=self._fp16(runner)
        )
        return {f"{PREFIX}{name}": value for name, value in means.items()}

    def _fp16(self, runner: Runner) -> bool:
        loop = runner.val_loop if self._split == "val" else runner.test_loop
        return bool(getattr(loop, "fp16", False))


def _bare(runner: Runner) -> Any:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
