"""Mixed precision in bfloat16, on the CPU as well as on GPUs that have it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn

from swin_dense.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class Bf16OptimWrapper(OptimWrapper):
    """Run the forward pass under bfloat16 autocast; weights, gradients and updates stay float32.

    bfloat16 has float32's range, so nothing is scaled and Swin does not overflow as it does in
    float16. mmengine's own AMP wrapper refuses the CPU.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast the forward pass of ``model``."""
        device = torch.device(get_device()).type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the optimizer's state; a loss scaler saved by a float16 run is left out."""
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "loss_scaler"})


def amp_wrapper_type() -> str:
    """Return the optimizer wrapper that mixed precision should use on this machine."""
    if torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        return "AmpOptimWrapper"
    return "swin_dense.Bf16OptimWrapper"
