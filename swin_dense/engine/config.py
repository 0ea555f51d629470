"""Find, load and override configs: our own, mmdet's and mmseg's alike."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction

from swin_dense.errors import UserError, did_you_mean

HOSTS = ("mmdet", "mmseg")

RUNNER_KEYS = frozenset(
    "model work_dir train_dataloader val_dataloader test_dataloader train_cfg val_cfg test_cfg "
    "auto_scale_lr optim_wrapper param_scheduler val_evaluator test_evaluator default_hooks "
    "custom_hooks data_preprocessor load_from resume launcher env_cfg log_processor log_level "
    "visualizer vis_backends default_scope randomness model_wrapper_cfg tta_model tta_pipeline "
    "tta_scales tta_flip custom_imports find_unused_parameters sync_bn compile compile_backbone "
    "experiment_name cfg runner_type val_loss".split()
)
"""Top-level keys that mean something to a run; a config may hold others as its own variables."""


OPTIONAL_GROUPS = frozenset(
    "metainfo filter_cfg data_prefix init_cfg paramwise_cfg clip_grad custom_keys".split()
)
"""Groups of keys that a config may leave out and an override may begin."""


def shipped_configs() -> Path:
    """Return the folder of this project's configs, in a checkout or in an installed package."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def find_config(name: str | Path) -> Path:
    """Return the path of a config given as a path, or by name.

    A path wins. Else ``mmdet::swin/NAME.py`` and ``mmseg::swin/NAME.py`` mean the configs inside
    the installed hosts, and anything else is looked up below this project's ``configs/``.

    Raises:
        UserError: there is no such config.
    """
    path = Path(os.path.expanduser(name))
    if path.is_file():
        return path
    text = str(name)
    host, separator, inside = text.partition("::")
    if separator and host in HOSTS:
        spec = find_spec(host)
        if spec is None or spec.origin is None:
            raise UserError(f"config {text}: {host} is not installed. Install it, or give a path.")
        root = Path(spec.origin).parent / ".mim" / "configs"
        candidate = root / inside
    else:
        root = shipped_configs()
        candidate = root / text.removeprefix("configs/")
    for suffix in ("", ".py"):
        found = candidate.with_name(candidate.name + suffix)
        if found.is_file():
            return found
    names = {file.name: file for file in root.rglob("*.py") if "_base_" not in file.parts}
    hint = did_you_mean(Path(inside or text).name, names)
    raise UserError(
        f"no config at {text}{hint}. Expected a file, a name below {shipped_configs()}, or "
        "mmdet::swin/NAME.py for a config of an installed host."
    )


def load_config(
    name: str | Path, options: Sequence[str] | Mapping[str, Any] | None = None
) -> Config:
    """Load a config and apply overrides.

    Args:
        name: as :func:`find_config` takes it.
        options: ``key=value`` strings as typed after ``--cfg-options``, or a mapping of dotted
            keys.

    Raises:
        UserError: no such config, it does not load, or an option names a key that does not exist.
    """
    path = find_config(name)
    if path.suffix not in (".py", ".json", ".yml", ".yaml"):
        raise UserError(f"{path} is no config: expected a .py, .json or .yaml file.")
    try:
        cfg = Config.fromfile(path)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"config {path} does not load: {type(error).__name__}: {error}") from error
    if options:
        changes = dict(options) if isinstance(options, Mapping) else parse_options(options)
        for key in changes:
            _check_option(cfg, key)
        try:
            cfg.merge_from_dict(changes)
        except (KeyError, TypeError, IndexError) as error:
            raise UserError(f"--cfg-options {changes} do not fit {path}: {error}") from error
    return cfg


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse ``key=value`` strings with mmengine's own rules (numbers, None, lists, nested tuples).

    Raises:
        UserError: a string without ``=``, or a value that does not parse.
    """
    for pair in pairs:
        if "=" not in pair:
            raise UserError(
                f"--cfg-options got {pair!r}; expected key=value, for example "
                "train_cfg.max_epochs=6 model.backbone.init_cfg=None"
            )
    namespace = argparse.Namespace()
    action = DictAction(["--cfg-options"], "options")
    try:
        action(argparse.ArgumentParser(), namespace, list(pairs))
    except (AssertionError, ValueError) as error:
        raise UserError(f"--cfg-options {' '.join(pairs)} do not parse: {error}") from error
    return dict(namespace.options)


def host_of(cfg: Config) -> str:
    """Return "mmdet" or "mmseg", whose data sets and heads the config uses.

    Raises:
        UserError: the config names neither.
    """
    scope = cfg.get("default_scope")
    if scope not in HOSTS:
        raise UserError(
            f"the config has default_scope={scope!r}; expected one of {', '.join(HOSTS)}. Add the "
            "line "
            "default_scope = 'mmdet' for a detector or 'mmseg' for a segmenter."
        )
    return str(scope)


def leaf_datasets(dataset: Mapping[str, Any]) -> list[ConfigDict]:
    """Return the data-set configs inside wrappers such as RepeatDataset and ConcatDataset."""
    if isinstance(dataset, Sequence):
        return [leaf for item in dataset for leaf in leaf_datasets(item)]
    if "dataset" in dataset:
        return leaf_datasets(dataset["dataset"])
    if "datasets" in dataset:
        return leaf_datasets(dataset["datasets"])
    return [dataset]


def _check_option(cfg: Config, dotted: str) -> None:
    """Refuse an override whose parent does not exist: nothing would read the new key."""
    *parents, leaf = dotted.split(".")
    node: Any = cfg
    walked: list[str] = []
    for part in parents:
        if isinstance(node, list | tuple):
            if not part.isdigit() or int(part) >= len(node):
                raise UserError(
                    f"--cfg-options {dotted}: {'.'.join(walked)} is a list of {len(node)}; "
                    "expected an "
                    f"index from 0 to {len(node) - 1}, got {part!r}."
                )
            node = node[int(part)]
        elif isinstance(node, Mapping | Config) and (
            part in node or part in OPTIONAL_GROUPS or (not walked and part in RUNNER_KEYS)
        ):
            node = ConfigDict() if node.get(part) is None else node.get(part)
        else:
            known = [str(key) for key in node] if isinstance(node, Mapping | Config) else []
            where = ".".join(walked) or "the config"
            raise UserError(
                f"--cfg-options {dotted}: {where} has no key {part!r}{did_you_mean(part, known)}."
            )
        walked.append(part)
    if not parents and leaf not in cfg and leaf not in RUNNER_KEYS:
        hint = did_you_mean(leaf, RUNNER_KEYS | set(cfg))
        raise UserError(f"--cfg-options {dotted}: the config has no key {leaf!r}{hint}.")
