"""Models on a ViT whose distillation token learns from an image classifier, as in DeiT.

Source: DeiT (https://arxiv.org/abs/2012.12877), section 4: a token beside the class token, a linear
head on it, and a teacher that says what is in the image.
Letters: B batch; C channels; K classes of the teacher.
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import Tensor, nn

from swin_dense.backbones.timm_import import import_timm
from swin_dense.errors import UserError
from swin_dense.models.distillation.losses import Reduction
from swin_dense.models.distillation.students import (
    Kind,
    Student,
    become,
    checked_recipe,
    followed_by,
)
from swin_dense.models.distillation.teacher import build_teacher
from swin_dense.registry import MODELS


class _TokenStudent(Student):
    def loss(self, inputs: Tensor, data_samples: list[Any]) -> dict[str, Any]:
        """Return the plain losses times 1 - alpha, and ``loss_distill`` of the token."""
        with torch.no_grad():
            targets = self.teacher(inputs)
        backbone: Any = self.backbone  # type: ignore[attr-defined]
        seen: list[Tensor] = []

        def keep(result: Any, images: Tensor) -> Any:
            seen.append(result[1][:, 1])  # (B, T, C) -> (B, C): class token, distillation token
            return result

        with followed_by(backbone, "maps_and_tokens", keep):
            losses: dict[str, Any] = super().loss(inputs, data_samples)  # type: ignore[misc]
        logits = backbone.head_dist(seen[0])
        if logits.shape != targets.shape:
            raise UserError(
                f"the teacher gives {tuple(targets.shape)} for {len(inputs)} images, the "
                f"distillation token {tuple(logits.shape)}; expected equal shapes: set num_classes "
                "to the teacher's, and give an image classifier as teacher."
            )
        mixed = {
            key: self._share(value) if "loss" in key else value for key, value in losses.items()
        }
        return mixed | {"loss_distill": self._distilled(logits, targets)}

    def _share(self, loss: Any) -> Any:
        return [self._mixed(part) for part in loss] if isinstance(loss, list) else self._mixed(loss)


@MODELS.register_module()
def TokenDistilled(
    student: dict[str, Any],
    teacher: dict[str, Any],
    teacher_checkpoint: str,
    *,
    num_classes: int,
    kind: Kind = "hard",
    alpha: float = 0.5,
    tau: float = 1.0,
    reduction: Reduction = "positions",
) -> nn.Module:
    """Build a detector or segmentor whose ViT also learns what an image classifier says.

    The distillation token goes through every block beside the patches; a linear layer on it,
    ``backbone.head_dist`` as in DeiT's own files, is compared with the teacher's logits.
    Predictions do not use it, and the plain student's config loads the checkpoint.

    Args:
        student: config of the model to train, with a ``swin_dense.VisionTransformer`` that has
            ``with_dist_token=True``.
        teacher: config of a model from images (B, 3, H, W), normalised as the student's, to logits
            (B, K), such as ``dict(type="swin_dense.TimmClassifier", model_name="regnety_160")``.
        teacher_checkpoint: path of the teacher's weights.
        num_classes: K.
        kind: "hard" (the teacher's best class) or "soft" (its probabilities).
        alpha: share of the distillation; the student's own losses keep 1 - alpha.
        tau: temperature of the soft kind.
        reduction: of the soft kind: "positions" divides by images, "numel" also by classes.

    Raises:
        UserError: no such checkpoint, or one of another model; a student without the token; an
            option out of its range.
    """
    recipe = checked_recipe(kind, alpha, tau, reduction)
    built: Any = MMENGINE_MODELS.build(student)
    backbone: Any = getattr(built, "backbone", None)
    if getattr(backbone, "dist_token", None) is None:
        raise UserError(
            f"TokenDistilled got a student with a {type(backbone).__name__} that has no "
            "distillation token; expected swin_dense.VisionTransformer with with_dist_token=True."
        )
    backbone.head_dist = nn.Linear(backbone.embed_dims, num_classes)
    nn.init.trunc_normal_(backbone.head_dist.weight, std=0.02)
    nn.init.zeros_(backbone.head_dist.bias)
    return become(built, build_teacher(teacher, teacher_checkpoint), _TokenStudent, recipe)


@MODELS.register_module()
def TimmClassifier(model_name: str, **options: Any) -> nn.Module:
    """Build an image classifier of timm, for a teacher: no weights are downloaded.

    Args:
        model_name: as ``timm.create_model`` takes it, such as "regnety_160", DeiT's teacher.
        options: anything else that the model takes, such as ``num_classes``.

    Raises:
        UserError: timm is not installed, or has no such model.
    """
    timm = import_timm()
    try:
        model: nn.Module = timm.create_model(model_name, pretrained=False, **options)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"TimmClassifier got model_name={model_name!r} with {options}, which timm does not "
            f"build: {error}. Expected a name of timm.list_models() and its options."
        ) from error
    return model
