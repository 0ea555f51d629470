"""Take torchvision's kernels where they are faster and agree with ours; never required."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch

Operation = Callable[..., Any]
_VERDICTS: dict[tuple[str, torch.device], Operation | None] = {}


def agreed_op(
    name: str, device: torch.device, agrees: Callable[[Operation, torch.device], bool]
) -> Operation | None:
    """Return ``torchvision.ops.name`` where it runs on ``device`` and agrees with ours, else None.

    Args:
        name: of the function.
        device: where it has to run; on a CPU ours is taken, unasked.
        agrees: compares the candidate with ours on that device; asked once for each device.
    """
    if not is_accelerator(device):
        return None
    key = (name, device)
    if key not in _VERDICTS:
        _VERDICTS[key] = _judge(name, device, agrees)
    return _VERDICTS[key]


def is_accelerator(device: torch.device) -> bool:
    """Whether many small kernels cost more there than they gain."""
    return device.type != "cpu"


def _judge(
    name: str, device: torch.device, agrees: Callable[[Operation, torch.device], bool]
) -> Operation | None:
    try:
        candidate: Operation = getattr(importlib.import_module("torchvision.ops"), name)
        # the verdict holds for every later call, so the caller's modes must not sway it
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(device.type, enabled=False),
        ):
            return candidate if agrees(candidate, device) else None
    # a torchvision built for another torch fails in any of these ways
    except (ImportError, OSError, AttributeError, RuntimeError):
        return None
