"""Convolutions that compute as :mod:`swin_dense.ops.convolution` does."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from swin_dense.ops import convolution


class Convolution(nn.Conv2d):
    """torch's convolution of stride 1, with less to multiply on the CPU; elsewhere torch's own."""

    @staticmethod
    def can_replace(module: nn.Module) -> bool:
        """Whether ``module`` is one of torch's convolutions that this class can stand for."""
        if type(module) is not nn.Conv2d or isinstance(module.padding, str):
            return False
        plain = (module.stride, module.dilation, module.groups) == ((1, 1), (1, 1), 1)
        return plain and module.padding_mode == "zeros"

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not convolution.applies(input, weight):
            return super()._conv_forward(input, weight, bias)
        padding: Any = self.padding
        return convolution.convolve(input, weight, bias, tuple(padding))


def replace_convolutions(model: nn.Module) -> int:
    """Let the convolutions of ``model`` be :class:`Convolution` where they can; return how many.

    Parameters, buffers and their names stay as they are.
    """
    found = [module for module in model.modules() if Convolution.can_replace(module)]
    for module in found:
        module.__class__ = Convolution
    return len(found)
