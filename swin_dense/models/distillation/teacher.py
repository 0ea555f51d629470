"""A trained model that only gives answers: loaded strictly, frozen, in evaluation mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import nn

from swin_dense.checkpoints.read import read_checkpoint
from swin_dense.errors import UserError


def build_teacher(cfg: dict[str, Any], checkpoint: str) -> nn.Module:
    """Build ``cfg`` with the weights of ``checkpoint``, frozen.

    Raises:
        UserError: there is no such file, or it is not wholly this model's.
    """
    if not isinstance(checkpoint, str) or not Path(checkpoint).is_file():
        raise UserError(
            f"teacher_checkpoint={checkpoint!r} is not a file; expected the trained teacher's "
            ".pth: train or download the teacher first, then give its path."
        )
    model: nn.Module = MMENGINE_MODELS.build(cfg)
    content = read_checkpoint(checkpoint)
    try:
        model.load_state_dict(content.get("state_dict", content))
    except RuntimeError as error:
        raise UserError(
            f"teacher_checkpoint={checkpoint!r} is not wholly the teacher's ({error}); expected "
            "a checkpoint of the config given as teacher: give the config it was trained with."
        ) from error
    return model.requires_grad_(False).eval()
