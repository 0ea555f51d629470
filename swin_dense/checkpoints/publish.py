"""Make a run's checkpoint small and self-describing: weights, names, config, normalisation."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swin_dense.checkpoints.convert import save
from swin_dense.checkpoints.fetch import check_sha256
from swin_dense.checkpoints.formats import unwrap
from swin_dense.checkpoints.heads import class_names
from swin_dense.errors import UserError
from swin_dense.version import __version__

_KEPT = ("epoch", "iter", "experiment_name", "score_thresholds")
NORMALISATION_KEYS = ("mean", "std", "bgr_to_rgb", "rgb_to_bgr")


def slim(
    checkpoint: Any,
    *,
    source: str = "the checkpoint",
    config_text: str | None = None,
    classes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return what others need of a run's checkpoint: no optimizer, schedule, or second set of
    weights.

    ``meta`` of the result has ``dataset_meta`` with the class names, ``cfg``, the config's text,
    ``normalisation`` as far as the config says it, ``weights_sha256`` and the version of this
    package.

    Args:
        checkpoint: what :func:`swin_dense.checkpoints.read.read_checkpoint` returned.
        source: its name for errors.
        config_text: the run's config; the checkpoint's own where it is None.
        classes: class names, where the checkpoint has none.

    Raises:
        UserError: there are no weights, no config, or no class names, or their number is another.
    """
    weights = {name: value.detach().cpu() for name, value in unwrap(checkpoint, source).items()}
    meta = checkpoint.get("meta") if isinstance(checkpoint, Mapping) else None
    meta = meta if isinstance(meta, Mapping) else {}
    text = config_text or meta.get("cfg") or meta.get("config")
    if not isinstance(text, str):
        raise UserError(f"{source} does not carry its config; give the run's with --config.")
    own = class_names(checkpoint)
    names = tuple(classes) if classes else own
    if names is None:
        raise UserError(f"{source} does not carry its class names; give them with --classes.")
    if own is not None and len(own) != len(names):
        raise UserError(
            f"got {len(names)} class names, expected {len(own)}: {source} was trained with "
            f"{', '.join(own[:5])}{', ...' if len(own) > 5 else ''}."
        )
    dataset = {str(k).lower(): v for k, v in dict(meta.get("dataset_meta") or {}).items()}
    return {
        "state_dict": weights,
        "meta": {
            "dataset_meta": {**dataset, "classes": names},
            "cfg": text,
            "normalisation": normalisation(text),
            "weights_sha256": weights_sha256(weights),
            "swin_dense_version": __version__,
            **{key: meta[key] for key in _KEPT if key in meta},
        },
    }


def publish(content: Mapping[str, Any], stem: Path) -> Path:
    """Write a slim checkpoint as ``STEM-<8 digits of its sha256>.pth`` and return that path.

    Loaders of this package and of the hosts hold a download to the checksum in its name.

    Raises:
        UserError: the folder does not exist.
    """
    stem = stem.with_suffix("") if stem.suffix in (".pth", ".pt") else stem
    unnamed = stem.with_name(stem.name + ".pth.unnamed.pth")
    save(content, unnamed)
    digest = hashlib.sha256(unnamed.read_bytes()).hexdigest()
    path = stem.with_name(f"{stem.name}-{digest[:8]}.pth")
    unnamed.replace(path)
    check_sha256(path, digest)
    return path


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """Return a checksum of names, dtypes, shapes and values, whatever file they are in."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def normalisation(config_text: str) -> dict[str, Any]:
    """Return mean, std and channel order of ``data_preprocessor`` in a config's text.

    The text is parsed and not run, for it may come from anybody's checkpoint.
    """
    try:
        tree = ast.parse(config_text)
    except SyntaxError:
        return {}
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        for name, value in _named_values(node):
            if name == "data_preprocessor":
                for key, entry in _named_values(value):
                    if key in NORMALISATION_KEYS:
                        try:
                            found.setdefault(key, ast.literal_eval(entry))
                        except ValueError:
                            continue
    return found


def _named_values(node: ast.AST) -> list[tuple[str, ast.expr]]:
    """Return (name, value) of an assignment, of ``dict(...)`` or of ``{...}``."""
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return [(node.targets[0].id, node.value)]
    if isinstance(node, ast.Call):
        return [(keyword.arg, keyword.value) for keyword in node.keywords if keyword.arg]
    if isinstance(node, ast.Dict):
        return [
            (key.value, value)
            for key, value in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant) and isinstance(key.value, str)
        ]
    return []
