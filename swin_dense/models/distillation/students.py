"""Segmentors and detectors that learn from a frozen teacher as well as from the ground truth.

The student *is* the plain student, under a subclass of its own class made on the spot: parameter
names, checkpoints and predictions are the plain model's, and only ``loss`` differs. The teacher
hangs outside the module tree, so that no optimizer, checkpoint or ``train()`` sees it.

Letters: B batch; K classes; N proposals; h, w the grid of the student's logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import Self

from swin_dense.errors import UserError
from swin_dense.models.distillation.losses import Reduction, hard_loss, soft_loss
from swin_dense.models.distillation.teacher import build_teacher
from swin_dense.registry import MODELS

Kind = Literal["soft", "hard"]


class Student:
    """What every kind of student adds to its plain class."""

    _teacher: tuple[Any]  # a tuple, because nn.Module takes a module for a child
    _recipe: dict[str, Any]
    training: bool

    @property
    def teacher(self) -> Any:
        """The frozen teacher."""
        return self._teacher[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Take the teacher along to the student's device."""
        self.teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)  # type: ignore[misc]

    def _mixed(self, loss: Tensor) -> Tensor:
        scaled: Tensor = (1 - self._recipe["alpha"]) * loss
        return scaled

    def _distilled(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return alpha times the distillation loss of (N, K) logits; 0 with a graph if N is 0."""
        recipe = self._recipe
        student, teacher = student.float(), teacher.float()
        if len(student) == 0:
            return student.sum()
        if recipe["kind"] == "hard":
            loss = hard_loss(student, teacher)
        else:
            loss = soft_loss(student, teacher, tau=recipe["tau"], reduction=recipe["reduction"])
        weighted: Tensor = recipe["alpha"] * loss
        return weighted


class _Segmentor(Student):
    def loss(self, inputs: Tensor, data_samples: list[Any]) -> dict[str, Tensor]:
        """Return the plain losses, the decode head's times 1 - alpha, and ``loss_distill``."""
        with torch.no_grad():
            teacher = self.teacher
            targets = teacher.decode_head.forward(teacher.extract_feat(inputs))

        def add(result: dict[str, Any], logits: Tensor, samples: list[Any]) -> dict[str, Any]:
            mixed = {k: self._mixed(v) if "loss" in k else v for k, v in result.items()}
            labels = torch.stack([sample.gt_sem_seg.data for sample in samples]).float()
            grid = tuple(logits.shape[2:])
            labels = functional.interpolate(labels, grid, mode="nearest")[:, 0]
            valid = labels != self.decode_head.ignore_index  # type: ignore[attr-defined]
            wanted = functional.interpolate(
                targets.float(), grid, mode="bilinear", align_corners=False
            )
            # (B, K, h, w) -> (B, h, w, K) -> (N, K)
            own = logits.permute(0, 2, 3, 1)[valid]
            return mixed | {"loss_distill": self._distilled(own, wanted.permute(0, 2, 3, 1)[valid])}

        head = self.decode_head  # type: ignore[attr-defined]
        with followed_by(head, "loss_by_feat", add):
            return super().loss(inputs, data_samples)  # type: ignore[misc]


class _Detector(Student):
    def loss(self, inputs: Tensor, data_samples: list[Any]) -> dict[str, Tensor]:
        """Return the plain losses, ``loss_cls`` times 1 - alpha, and ``loss_distill``.

        The teacher's box head judges the student's own sampled proposals on the same images.
        """
        with torch.no_grad():
            features = self.teacher.extract_feat(inputs)

        def add(
            result: dict[str, Any], *, cls_score: Tensor, rois: Tensor, **_: Any
        ) -> dict[str, Any]:
            with torch.no_grad():
                wanted = self.teacher.roi_head._bbox_forward(features, rois)["cls_score"]
            losses = dict(result["loss_bbox"])
            if "loss_cls" in losses:  # absent where nothing was sampled
                losses["loss_cls"] = self._mixed(losses["loss_cls"])
            losses["loss_distill"] = self._distilled(cls_score, wanted)
            return result | {"loss_bbox": losses}

        head = self.roi_head.bbox_head  # type: ignore[attr-defined]
        with followed_by(head, "loss_and_target", add):
            return super().loss(inputs, data_samples)  # type: ignore[misc]


@contextmanager
def followed_by(owner: nn.Module, name: str, then: Callable[..., Any]) -> Iterator[None]:
    """Pass the result of ``owner.name(...)`` and its arguments through ``then`` meanwhile.

    The hosts' heads return losses, not logits; these are the methods that get the logits.
    """
    method = getattr(owner, name)

    def both(*args: Any, **options: Any) -> Any:
        return then(method(*args, **options), *args, **options)

    object.__setattr__(owner, name, both)
    try:
        yield
    finally:
        object.__delattr__(owner, name)


@MODELS.register_module()
def DistilledSegmentor(
    student: dict[str, Any],
    teacher: dict[str, Any],
    teacher_checkpoint: str,
    *,
    kind: Kind = "soft",
    alpha: float = 0.5,
    tau: float = 1.0,
    reduction: Reduction = "positions",
) -> nn.Module:
    """Build an mmseg ``EncoderDecoder`` that also learns from a teacher, pixel by pixel.

    Args:
        student: config of the model to train.
        teacher: config of a trained model of the same classes; its ``init_cfg`` is not used.
        teacher_checkpoint: path of the teacher's weights.
        kind: "soft" (the teacher's probabilities) or "hard" (its best class).
        alpha: share of the distillation; the student's own loss on the labels keeps 1 - alpha.
        tau: temperature of the soft kind.
        reduction: of the soft kind: "positions" divides by pixels, "numel" also by classes.

    Raises:
        UserError: no such checkpoint, or one of another model; models that do not match; an option
            out of its range.
    """
    recipe = checked_recipe(kind, alpha, tau, reduction)
    built: Any = MMENGINE_MODELS.build(student)
    frozen: Any = build_teacher(teacher, teacher_checkpoint)
    for role, model in (("student", built), ("teacher", frozen)):
        head: Any = getattr(model, "decode_head", None)
        if not hasattr(head, "loss_by_feat") or isinstance(head, nn.ModuleList):
            raise UserError(
                f"DistilledSegmentor got a {type(model).__name__} as {role}; expected an "
                "EncoderDecoder with one decode head: choose such a config."
            )
    _check_classes(built.decode_head.out_channels, frozen.decode_head.out_channels)
    if built.decode_head.out_channels == 1:
        raise UserError(
            "DistilledSegmentor got heads of one sigmoid channel; expected a softmax over 2 or "
            "more: set out_channels=2 in both decode heads."
        )
    return _join(built, frozen, _Segmentor, recipe)


@MODELS.register_module()
def DistilledDetector(
    student: dict[str, Any],
    teacher: dict[str, Any],
    teacher_checkpoint: str,
    *,
    kind: Kind = "soft",
    alpha: float = 0.5,
    tau: float = 1.0,
    reduction: Reduction = "positions",
) -> nn.Module:
    """Build an mmdet two-stage detector that also learns from a teacher's box classification.

    The arguments are those of :func:`DistilledSegmentor`; "positions" are sampled proposals.

    Raises:
        UserError: as there; and cascades, and box heads with sigmoid classes.
    """
    recipe = checked_recipe(kind, alpha, tau, reduction)
    built: Any = MMENGINE_MODELS.build(student)
    frozen: Any = build_teacher(teacher, teacher_checkpoint)
    for role, model in (("student", built), ("teacher", frozen)):
        head: Any = getattr(getattr(model, "roi_head", None), "bbox_head", None)
        if not hasattr(head, "loss_and_target"):
            raise UserError(
                f"DistilledDetector got a {type(model).__name__} as {role}; expected a two-stage "
                "detector with one box head (Faster or Mask R-CNN): choose such a config."
            )
        if getattr(head.loss_cls, "use_sigmoid", False):
            raise UserError(
                f"DistilledDetector got sigmoid classes in the {role}'s box head; expected a "
                "softmax: set bbox_head.loss_cls.use_sigmoid=False."
            )
    _check_classes(
        built.roi_head.bbox_head.num_classes + 1, frozen.roi_head.bbox_head.num_classes + 1
    )
    return _join(built, frozen, _Detector, recipe)


def checked_recipe(kind: str, alpha: float, tau: float, reduction: str) -> dict[str, Any]:
    """Return what a student learns by.

    Raises:
        UserError: a kind or reduction that does not exist, a share or temperature out of its range.
    """
    if kind not in ("soft", "hard"):
        raise UserError(f"`kind` is {kind!r}; expected 'soft' or 'hard': set one.")
    if not 0 <= alpha <= 1:
        raise UserError(f"`alpha` is {alpha}; expected a share from 0 to 1: set for example 0.5.")
    soft_loss(torch.zeros(1, 2), torch.zeros(1, 2), tau=tau, reduction=reduction)  # type: ignore[arg-type]
    return dict(kind=kind, alpha=alpha, tau=tau, reduction=reduction)


def _check_classes(student: int, teacher: int) -> None:
    if student != teacher:
        raise UserError(
            f"the student has {student} logits and the teacher {teacher}; expected equal "
            "num_classes: distil between models of the same classes."
        )


def _join(student: nn.Module, teacher: nn.Module, kind: type, recipe: dict[str, Any]) -> nn.Module:
    """Return the student of a teacher of its own kind; both must normalise images alike."""
    for name in ("mean", "std"):
        own, other = (getattr(m.data_preprocessor, name, None) for m in (student, teacher))
        if own is None or other is None:
            same = own is other
        else:
            same = own.is_meta or torch.equal(own, other)  # on meta, to be counted, nothing is told
        if not same:
            raise UserError(
                f"the data_preprocessors of student and teacher differ in {name} ({own}, {other}); "
                "expected the same, since both see the same tensor: train the teacher with it."
            )
    return become(student, teacher, kind, recipe)


def become(student: nn.Module, teacher: nn.Module, kind: type, recipe: dict[str, Any]) -> nn.Module:
    """Make a student of a plain model: an instance of ``kind`` and of its own class."""
    plain = type(student)
    object.__setattr__(student, "_teacher", (teacher,))
    object.__setattr__(student, "_recipe", recipe)
    student.__class__ = type(f"Distilled{plain.__name__}", (kind, plain), {})
    return student
