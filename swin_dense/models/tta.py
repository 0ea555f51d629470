"""Test-time augmentation: one prediction from several views of a photograph.

A view is the photograph scaled, flipped, or both. Boxes follow the usual recipe: those of every
view in the photograph's frame, then NMS by class. Masks follow detectron2's
``GeneralizedRCNNWithTTA``: the mask head looks at the merged boxes in every view, and its
probabilities are averaged.
Letters: V views; B images; N boxes; K classes; H, W the photograph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.ops import batched_nms
from mmengine.model import BaseTTAModel
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from swin_dense.errors import UserError
from swin_dense.registry import MODELS

FLIPPED_DIMS = {"horizontal": (-1,), "vertical": (-2,), "diagonal": (-2, -1)}
"""Which dimensions of a map (..., H, W) each of the hosts' flips turns over."""


class _TTA(BaseTTAModel):
    """A model that is shown views; batches come from a pipeline that ends in ``TestTimeAug``."""

    @torch.no_grad()
    def test_step(self, data: Mapping[str, Any]) -> list[Any]:
        """Return one prediction for each of B images.

        A single view that is not flipped is predicted by the model itself, to the last bit.

        Args:
            data: ``inputs`` and ``data_samples``, each a list of V lists of B.

        Raises:
            UserError: a view is flipped in a way that cannot be undone.
        """
        count = len(data["inputs"])
        views = [
            self.module.data_preprocessor(
                {key: list(value[view]) for key, value in data.items()}, False
            )
            for view in range(count)
        ]
        for view in views:
            for sample in view["data_samples"]:
                direction = _flip_of(sample.metainfo)
                if direction is not None and direction not in FLIPPED_DIMS:
                    raise UserError(
                        f"test-time augmentation: a view is flipped {direction!r}; expected one of "
                        f"{', '.join(FLIPPED_DIMS)}. Change RandomFlip in tta_pipeline."
                    )
        first = views[0]
        if count == 1 and all(_flip_of(s.metainfo) is None for s in first["data_samples"]):
            return list(self.module._run_forward(first, mode="predict"))
        return self.predict_views(views)

    def predict_views(self, views: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Merge V preprocessed batches of the same B images."""
        raise NotImplementedError

    def merge_preds(self, data_samples_list: Any) -> Any:
        """Refuse: views are merged before they become predictions, in :meth:`predict_views`."""
        raise NotImplementedError("call test_step; it merges the views by itself")


def _flip_of(meta: Mapping[str, Any]) -> str | None:
    return meta.get("flip_direction") or "unknown" if meta.get("flip") else None


@MODELS.register_module()
class SegmentorTTA(_TTA):
    """Averages class probabilities over the views, at the photograph's own size.

    ``seg_logits`` of a result are logarithms of the averaged probabilities, so that their softmax
    gives these; a one-channel model's stay probabilities, as the host leaves them.

    Args:
        module: config of a segmentor, or a built one.
    """

    def predict_views(self, views: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return the B samples of the first view with merged ``seg_logits``, ``pred_sem_seg``."""
        total: list[Tensor] = []
        merged: list[Any] = []
        for view in views:
            samples = self.module._run_forward(view, mode="predict")
            maps = [sample.seg_logits.data for sample in samples]
            # the host has put the sigmoid on a one-channel map already, and undone the flip
            shares = [m.softmax(dim=0) if len(m) > 1 else m for m in maps]
            merged = merged or list(samples)
            total = [a + b for a, b in zip(total, shares, strict=True)] if total else shares
        for sample, summed in zip(merged, total, strict=True):
            mean = summed / len(views)
            if len(mean) > 1:
                labels = mean.argmax(dim=0, keepdim=True)
                mean = mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
            else:
                labels = (mean > self.module.decode_head.threshold).to(mean)
            sample.set_data(
                dict(seg_logits=PixelData(data=mean), pred_sem_seg=PixelData(data=labels))
            )
        return merged


@MODELS.register_module()
class DetectorTTA(_TTA):
    """Merges boxes by NMS within each class, then predicts masks on the merged boxes.

    The model's own ``test_cfg`` says the IoU threshold and how many are kept. A model with soft-NMS
    applies it in each view; views are merged by plain NMS, since a second decay would lower scores.

    Args:
        module: config of a detector, or a built one: two-stage, with masks or without, cascades
            included; or single-stage with boxes only.

    Raises:
        UserError: a detector of another kind, or one that predicts without NMS.
    """

    def __init__(self, module: Any, data_preprocessor: Any = None) -> None:
        super().__init__(module, data_preprocessor)
        self._two_stage = _is_two_stage(self.module)
        head = self.module.roi_head if self._two_stage else self.module.bbox_head
        self._test_cfg = head.test_cfg
        nms = (self._test_cfg or {}).get("nms") or {}
        threshold = nms.get("iou_threshold", nms.get("iou_thr"))
        if threshold is None:
            raise UserError(
                f"--tta: {type(self.module).__name__} has no NMS in its test_cfg, which merging "
                "the boxes of several views needs. Add nms=dict(type='nms', iou_threshold=0.5)."
            )
        self._nms = dict(type="nms", iou_threshold=threshold)
        if "class_agnostic" in nms:
            self._nms["class_agnostic"] = nms["class_agnostic"]

    def predict_views(self, views: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return the B samples of the first view with ``pred_instances`` of all of them."""
        maps = [self.module.extract_feat(view["inputs"]) for view in views]
        metas = [[sample.metainfo for sample in view["data_samples"]] for view in views]
        found = [
            self._boxes(levels, view["data_samples"])
            for levels, view in zip(maps, views, strict=True)
        ]
        merged = [
            self._merge([v[image] for v in found], [m[image] for m in metas])
            for image in range(len(metas[0]))
        ]
        if self._two_stage and self.module.roi_head.with_mask:
            merged = self._masks(maps, metas, merged)
        return list(self.module.add_pred_to_datasample(views[0]["data_samples"], merged))

    def _boxes(self, maps: Any, samples: Any) -> list[Any]:
        """Return each image's boxes in the frame of the view that ``maps`` come from."""
        if not self._two_stage:
            found = list(self.module.bbox_head.predict(maps, samples, rescale=False))
            if any("masks" in each for each in found):
                raise UserError(_unknown(type(self.module.bbox_head)))
            return found
        proposals = self.module.rpn_head.predict(maps, samples, rescale=False)
        return list(
            self.module.roi_head.predict_bbox(
                maps,
                [sample.metainfo for sample in samples],
                proposals,
                rcnn_test_cfg=self._test_cfg,
                rescale=False,
            )
        )

    def _merge(self, found: Sequence[Any], metas: Sequence[Mapping[str, Any]]) -> Any:
        boxes = torch.cat(
            [
                _flip_boxes(each.bboxes, meta) / _scales(each.bboxes, meta)
                for each, meta in zip(found, metas, strict=True)
            ]
        )
        scores = torch.cat([each.scores for each in found])
        labels = torch.cat([each.labels for each in found])
        if len(boxes):
            _, kept = batched_nms(boxes, scores, labels, self._nms)
            kept = kept[: self._test_cfg.get("max_per_img", len(kept))]
            boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        return InstanceData(bboxes=boxes, scores=scores, labels=labels)

    def _masks(self, maps: Sequence[Any], metas: Sequence[Any], merged: list[Any]) -> list[Any]:
        """Add masks (N, H, W) to each image's merged boxes."""
        from mmdet.models.roi_heads import CascadeRoIHead
        from mmdet.structures.bbox import bbox2roi

        head: Any = self.module.roi_head
        cascade = isinstance(head, CascadeRoIHead)
        counts = [len(each) for each in merged]
        total: list[Any] = [None] * len(merged)
        for levels, view in zip(maps if sum(counts) else (), metas, strict=False):
            rois = bbox2roi(
                [
                    _flip_boxes(each.bboxes * _scales(each.bboxes, meta), meta)
                    for each, meta in zip(merged, view, strict=True)
                ]
            )
            stages = [(stage,) for stage in range(head.num_stages)] if cascade else [()]
            shares = torch.stack(
                [head._mask_forward(*s, levels, rois)["mask_preds"].sigmoid() for s in stages]
            ).mean(dim=0)
            for image, share in enumerate(torch.split(shares, counts)):
                direction = _flip_of(view[image])
                upright = share if direction is None else share.flip(FLIPPED_DIMS[direction])
                total[image] = upright if total[image] is None else total[image] + upright
        mask_head = head.mask_head[-1] if cascade else head.mask_head
        pasted = mask_head.predict_by_feat(
            # the host takes logits here, and pastes in single precision
            mask_preds=[None if t is None else (t / len(maps)).logit().float() for t in total],
            results_list=[InstanceData(bboxes=each.bboxes.float().clone(), labels=each.labels)
                          for each in merged],
            batch_img_metas=[
                dict(ori_shape=meta["ori_shape"], scale_factor=(1.0, 1.0)) for meta in metas[0]
            ],
            rcnn_test_cfg=self._test_cfg,
            rescale=True,
        )  # fmt: skip
        for each, masks in zip(merged, pasted, strict=True):
            each.masks = masks.masks
        return merged


def _scales(boxes: Tensor, meta: Mapping[str, Any]) -> Tensor:
    """Return (4,) factors that take a box of the photograph into the unflipped view."""
    width, height = meta.get("scale_factor", (1.0, 1.0))[:2]
    return boxes.new_tensor([width, height, width, height])


def _flip_boxes(boxes: Tensor, meta: Mapping[str, Any]) -> Tensor:
    """Mirror boxes (N, 4) inside the view without its padding; twice is nothing."""
    direction = _flip_of(meta)
    if direction is None:
        return boxes
    height, width = meta["img_shape"][:2]
    left, top, right, bottom = boxes.unbind(-1)
    if direction != "vertical":
        left, right = width - right, width - left
    if direction != "horizontal":
        top, bottom = height - bottom, height - top
    return torch.stack([left, top, right, bottom], dim=-1)


def _is_two_stage(model: Any) -> bool:
    """Tell a two-stage detector from a single-stage one.

    Raises:
        UserError: it is neither, or predicts in a way of its own.
    """
    from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
    from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead

    kind = type(model)
    if getattr(kind, "predict", None) is SingleStageDetector.predict:
        return False
    if getattr(kind, "predict", None) is TwoStageDetector.predict and model.with_roi_head:
        head = type(model.roi_head)
        for known in (StandardRoIHead, CascadeRoIHead):
            if issubclass(head, known) and all(
                getattr(head, name) is getattr(known, name) for name in ("predict", "predict_mask")
            ):
                return True
        kind = head
    raise UserError(_unknown(kind))


def _unknown(kind: type) -> str:
    return (
        f"--tta does not know how {kind.__name__} predicts; expected a two-stage detector with a "
        "StandardRoIHead or CascadeRoIHead, or a single-stage one with boxes only. Test without "
        "--tta, or give the config a tta_model of its own."
    )
