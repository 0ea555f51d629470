"""Turn a config into a runner: what training and evaluation share."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from swin_dense.data.preflight import check_evaluator, check_files, check_paths
from swin_dense.engine.compiling import compile_parts
from swin_dense.engine.config import host_of, leaf_datasets
from swin_dense.engine.evaluation import use_own_metrics
from swin_dense.engine.runtime import fit_to_machine, quicken
from swin_dense.errors import UserError
from swin_dense.host.repairs import repair_hosts

_RUNS = itertools.count()


def default_work_dir(config_path: str | Path) -> str:
    """Return ``work_dirs/<stem>`` for a config's path."""
    return str(Path("work_dirs") / Path(config_path).stem)


def build_runner(cfg: Config, *, splits: Sequence[str], launcher: str = "none") -> Runner:
    """Check the data of ``splits``, fit ``cfg`` to the machine and build its runner.

    Args:
        cfg: a whole config with ``work_dir`` set; it is changed in place.
        splits: of "train", "val" and "test", those that the run will read.
        launcher: "none", "pytorch", "slurm" or "mpi".

    Raises:
        UserError: data that is not there, or options that do not fit.
    """
    host_of(cfg)
    repair_hosts()
    _check_data(cfg, splits)
    notes = fit_to_machine(cfg, launcher=launcher)
    for split in {"val", "test"} & set(splits):
        notes += use_own_metrics(cfg, split, predictions=split == "test")
    _give_own_visualizer(cfg)
    runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
    notes += quicken(runner.model)
    notes += compile_parts(runner.model, cfg)
    for note in notes:
        runner.logger.info(note)
    return runner


@contextmanager
def leaving_nothing_of_a_refusal(work_dir: str | Path) -> Iterator[None]:
    """Take away the logs and config dump of a run that a user's mistake ended.

    Only what is new in ``work_dir`` goes, and only where the run left no checkpoint; an error that
    is not the user's keeps its logs.
    """
    folder = Path(work_dir)
    existed = folder.is_dir()
    before = set(folder.iterdir()) if existed else set()
    try:
        yield
    except (UserError, TypeError, KeyError):
        new = set(folder.iterdir()) - before if folder.is_dir() else set()
        if not any(path.suffix == ".pth" for path in new):
            for path in new:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            if not existed and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def check_dataset_files(where: str, dataset: Any) -> None:
    """Check that every image (and label map) that a built data set names exists.

    Raises:
        UserError: some do not.
    """
    while hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    for part in getattr(dataset, "datasets", [dataset]):
        if not hasattr(part, "get_data_info"):
            continue
        infos = [part.get_data_info(index) for index in range(len(part))]
        for key in ("img_path", "seg_map_path"):
            paths = [info[key] for info in infos if isinstance(info.get(key), str)]
            check_files(where, [path for path in paths if "://" not in path])


def _give_own_visualizer(cfg: Config) -> None:
    """Rename the visualizer from a process's second run on.

    mmengine keeps visualizers by name, so a second run would write its curves into the first one's
    folder.
    """
    visualizer = cfg.get("visualizer")
    if visualizer is not None:
        number = next(_RUNS)
        visualizer["name"] = (
            f"visualizer_{number}" if number else visualizer.get("name", "visualizer")
        )


def _check_data(cfg: Config, splits: Sequence[str]) -> None:
    leaves = {}
    for split in splits:
        loader = cfg.get(f"{split}_dataloader")
        if loader is None:
            continue
        parts = leaf_datasets(loader["dataset"])
        for index, leaf in enumerate(parts):
            name = f"{split}_dataloader" + (f"[{index}]" if len(parts) > 1 else "")
            leaves[name] = leaf
    check_paths(leaves)
    for split in splits:
        if (evaluator := cfg.get(f"{split}_evaluator")) is not None:
            check_evaluator(f"{split}_evaluator", evaluator)
