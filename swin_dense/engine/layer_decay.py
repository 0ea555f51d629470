"""Learning rates that fall from the last layer to the first.

Source: ELECTRA and BEiT (https://arxiv.org/abs/2106.08254), as ViTDet
(https://arxiv.org/abs/2203.16527) fine-tunes with them.
"""

from __future__ import annotations

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from swin_dense.errors import UserError
from swin_dense.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Groups of parameters whose rate is ``lr * layer_decay_rate ** (layers above them)``.

    ``paramwise_cfg`` takes ``layer_decay_rate``, in (0, 1], beside all that mmengine's constructor
    takes; ``lr_mult`` and ``decay_mult`` of ``custom_keys`` and the like hold as well. The backbone
    says how deep each of its parameters lies, by a method ``layer_of``; what is outside the
    backbone has the whole rate.

    Raises:
        UserError: no ``layer_decay_rate``, one outside (0, 1], or a model whose backbone does not
            say how deep its parameters lie.
    """

    def __init__(
        self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None
    ) -> None:
        paramwise_cfg = dict(paramwise_cfg or {})
        self.layer_decay_rate = paramwise_cfg.get("layer_decay_rate")
        if (
            not isinstance(self.layer_decay_rate, (int, float))
            or not 0 < self.layer_decay_rate <= 1
        ):
            raise UserError(
                f"paramwise_cfg has layer_decay_rate={self.layer_decay_rate!r}; expected a number "
                "above 0, at most 1, such as 0.7."
            )
        super().__init__(optim_wrapper_cfg, paramwise_cfg)

    def __call__(self, model: nn.Module) -> Any:
        """Return the optimizer's wrapper of a model, or of a model wrapped for many GPUs."""
        backbone: Any = getattr(getattr(model, "module", model), "backbone", None)
        if not hasattr(backbone, "layer_of"):
            raise UserError(
                f"rates that decay by layer need a backbone that says how deep its parameters lie; "
                f"{type(backbone).__name__} does not. Use swin_dense.VisionTransformer, or leave "
                "the constructor out."
            )
        self._backbone = backbone
        self._names = {id(value): name for name, value in backbone.named_parameters()}
        return super().__call__(model)

    def add_params(
        self,
        params: list[dict[str, Any]],
        module: nn.Module,
        prefix: str = "",
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Append the groups of a module, as mmengine's constructor makes them, with the rates of
        their layers."""
        first = len(params)
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:
            return
        layers = self._backbone.layer_of("norm.weight")
        for group in params[first:]:
            (parameter,) = group["params"]
            name = self._names.get(id(parameter))
            if name is not None:
                factor = self.layer_decay_rate ** (layers - self._backbone.layer_of(name))
                group["lr"] = group.get("lr", self.base_lr) * factor
