"""Convolutions that compute as :mod:`swin_dense.ops.convolution` and ``deconvolution`` do."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from swin_dense.ops import convolution, deconvolution

_HOMES = ("torch.nn.modules.conv", "mmcv.cnn.bricks.wrappers")
"""Where classes come from that compute as torch's do; mmcv's add a guard for torch before 1.5."""


class Convolution(nn.Conv2d):
    """torch's convolution of stride 1, with less to multiply on the CPU; elsewhere torch's own."""

    @staticmethod
    def can_replace(module: nn.Module) -> bool:
        """Whether ``module`` is a convolution that this class can stand for."""
        if not isinstance(module, nn.Conv2d) or type(module).__module__ not in _HOMES:
            return False
        plain = (module.stride, module.dilation, module.groups) == ((1, 1), (1, 1), 1)
        return plain and module.padding_mode == "zeros" and not isinstance(module.padding, str)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not convolution.applies(input, weight):
            return super()._conv_forward(input, weight, bias)
        padding: Any = self.padding
        return convolution.convolve(input, weight, bias, tuple(padding))


class Deconvolution(nn.ConvTranspose2d):
    """torch's transposed convolution whose outputs do not overlap, as one product on the CPU."""

    @staticmethod
    def can_replace(module: nn.Module) -> bool:
        """Whether ``module`` is a transposed convolution that this class can stand for."""
        if not isinstance(module, nn.ConvTranspose2d) or type(module).__module__ not in _HOMES:
            return False
        plain = (module.dilation, module.groups) == ((1, 1), 1)
        whole = tuple(module.padding) == tuple(module.output_padding) == (0, 0)
        return plain and whole and module.stride == module.kernel_size

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (B, C, H, W) to (B, O, H * kh, W * kw)."""
        if output_size is not None or not deconvolution.applies(input):
            return super().forward(input, output_size)
        return deconvolution.deconvolve(input, self.weight, self.bias)


def replace_convolutions(model: nn.Module) -> int:
    """Let the convolutions of ``model`` be these classes where they can; return how many.

    Parameters, buffers and their names stay as they are.
    """
    count = 0
    for module in model.modules():
        for own in (Convolution, Deconvolution):
            if own.can_replace(module):
                module.__class__ = own
                count += 1
    return count
