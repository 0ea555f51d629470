"""The two-layer perceptron of a transformer block."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from swin_dense.layers.linear import Linear
from swin_dense.ops import fused


class Mlp(nn.Module):
    """fc1, activation, dropout, fc2, dropout on the last axis."""

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        *,
        activation: Callable[[], nn.Module] = nn.GELU,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.act = activation()
        self.fc2 = Linear(hidden_dim, dim)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        return self.drop(self.fc2(self.drop(self._hidden(tokens))))

    def _hidden(self, tokens: Tensor) -> Tensor:
        exact_gelu = type(self.act) is nn.GELU and self.act.approximate == "none"
        watched = self.fc1._forward_hooks or self.act._forward_hooks
        if exact_gelu and type(self.fc1) is Linear and not watched:
            return fused.linear_gelu(tokens, self.fc1.weight, self.fc1.bias)
        hidden: Tensor = self.act(self.fc1(tokens))
        return hidden
