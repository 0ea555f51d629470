"""Look at a config's data before a run starts: what is missing is said at once and all together."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from swin_dense.errors import UserError

_SHOWN = 3


def check_paths(datasets: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that roots, annotation files and folders of data-set configs exist.

    Args:
        datasets: leaf data-set configs by the name to call them by, such as ``"train_dataloader"``.

    Raises:
        UserError: one or more do not exist; the message lists them all.
    """
    problems = []
    for where, dataset in datasets.items():
        root = dataset.get("data_root") or ""
        if root and not os.path.isdir(root):
            problems.append(f"{where}: data_root {root} is not a folder")
            continue
        annotations = dataset.get("ann_file") or ""
        if annotations and not os.path.isfile(path := _join(root, annotations)):
            problems.append(f"{where}: ann_file {path} does not exist")
        for key, prefix in (dataset.get("data_prefix") or {}).items():
            if prefix and not os.path.isdir(path := _join(root, prefix)):
                problems.append(f"{where}: data_prefix[{key!r}] {path} is not a folder")
    if problems:
        raise UserError(
            "the data is not where the config says:\n  "
            + "\n  ".join(problems)
            + f"\n(paths are relative to {Path.cwd()}; set them in the config, or for one run with "
            "--cfg-options train_dataloader.dataset.data_root=/path/to/data and the same for "
            "val_dataloader and test_dataloader, and val_evaluator.ann_file for COCO)"
        )


def check_evaluator(where: str, evaluator: Any) -> None:
    """Check that the annotation files a metric reads exist.

    Raises:
        UserError: one does not.
    """
    for metric in evaluator if isinstance(evaluator, list | tuple) else [evaluator]:
        path = metric.get("ann_file") if isinstance(metric, Mapping) else None
        if path and not os.path.isfile(path):
            raise UserError(
                f"{where}: ann_file {path} does not exist. The metric reads its own copy of the "
                "path: set "
                f"--cfg-options {where}.ann_file=... next to the data set's."
            )


def check_files(where: str, paths: Iterable[str]) -> int:
    """Check that each file exists, listing every folder once; return how many there are.

    Raises:
        UserError: some do not, with their number and the first few.
    """
    by_folder: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        folder, name = os.path.split(path)
        by_folder[folder].add(name)
    missing = []
    for folder, names in by_folder.items():
        present = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        missing += [os.path.join(folder, name) for name in sorted(names - present)]
    total = sum(map(len, by_folder.values()))
    if missing:
        raise UserError(
            f"{where}: {len(missing)} of {total} files that the annotations name do not exist, "
            "such as "
            f"{', '.join(missing[:_SHOWN])}. Complete the folder, or take them out of the "
            "annotations."
        )
    return total


def _join(root: str, path: str) -> str:
    """Join as the hosts do: an absolute path or a URL stands by itself."""
    return path if os.path.isabs(path) or "://" in path else os.path.join(root, path)
