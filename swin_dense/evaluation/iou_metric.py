"""``swin_dense.IoUMetric``: mIoU under mmseg's names, from one confusion matrix.

Takes the options of mmseg's ``IoUMetric``. Where a folder is given, label maps are written as they
come and are whole on the disk before anything is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, barrier, get_rank, get_world_size
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from PIL import Image

from swin_dense.errors import UserError, did_you_mean
from swin_dense.evaluation.confusion import BoundaryConfusion, Confusion, Labels
from swin_dense.evaluation.prediction_writers import (
    CALIBRATION_BINS,
    RunHeader,
    SegmentationWriter,
)
from swin_dense.evaluation.predictions import PredictedImage
from swin_dense.registry import METRICS

_FIGURES = {
    "mIoU": ("IoU", "Acc"),
    "mDice": ("Dice", "Acc"),
    "mFscore": ("Fscore", "Precision", "Recall"),
}


@METRICS.register_module()
class IoUMetric(BaseMetric):
    """Segmentation figures in percent, with mmseg's options and names; see docs/evaluation.md.

    Args:
        ignore_index: the true label of pixels that count nowhere.
        iou_metrics: of "mIoU" (also mAcc), "mDice" and "mFscore" (also mPrecision, mRecall).
        nan_to_num: what a class that is nowhere counts; None leaves it out of the mean.
        beta: weight of recall in Fscore.
        output_dir: folder for label maps in the data set's own numbering, as mmseg writes them.
        format_only: write and measure nothing.
        boundary: also measure boundary IoU.
        classwise: also report each class, as ``IoU/NAME``.
        predictions_dir: folder to leave the predictions in; None writes none.
        run: further fields of the folder's ``index.json``: config, checkpoint, image_root.
        prefix: before each figure's name.
        keep_results, collect_device: accepted for configs that have them; they change nothing.

    Raises:
        UserError: an option does not fit.
    """

    def __init__(
        self,
        *,
        ignore_index: int = 255,
        iou_metrics: str | Sequence[str] = ("mIoU",),
        nan_to_num: float | None = None,
        beta: float = 1.0,
        output_dir: str | None = None,
        format_only: bool = False,
        boundary: bool = False,
        classwise: bool = False,
        predictions_dir: str | None = None,
        run: Mapping[str, Any] | None = None,
        prefix: str | None = None,
        keep_results: bool = False,
        collect_device: str = "cpu",
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self._wanted = [iou_metrics] if isinstance(iou_metrics, str) else list(iou_metrics)
        for name in self._wanted:
            if name not in _FIGURES:
                raise UserError(
                    f"got iou_metrics {name!r}{did_you_mean(name, _FIGURES)}; expected of "
                    f"{', '.join(_FIGURES)}."
                )
        self._ignore_index, self._nan_to_num, self._beta = ignore_index, nan_to_num, beta
        self._output_dir, self._format_only = output_dir, format_only
        self._boundary, self._classwise = boundary, classwise
        self._predictions_dir, self._run = predictions_dir, dict(run or {})
        self._counters: list[Confusion] | None = None
        self._writer: SegmentationWriter | None = None
        self._pending: tuple[Labels, Labels] | None = None
        self._seen = 0

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Count the pixels of some pictures, and write them.

        Raises:
            UserError: prediction and truth are of different size, or there is no truth.
        """
        if self._counters is None:
            self._begin()
        for sample in data_samples:
            predicted = _map_of(sample["pred_sem_seg"])
            true = _map_of(sample["gt_sem_seg"]) if "gt_sem_seg" in sample else None
            if true is None and not self._format_only:
                raise UserError(
                    f"{sample.get('img_path')} has no ground truth; expected LoadAnnotations in "
                    "the test pipeline, or format_only=True to write predictions alone."
                )
            if true is not None and true.shape != predicted.shape:
                raise UserError(
                    f"the prediction on {sample.get('img_path')} has shape {predicted.shape} and "
                    f"its truth {true.shape}; expected the same. Is the label map as large as the "
                    "photograph, and is LoadAnnotations the last step before packing?"
                )
            self._count_pending()
            if true is not None and not self._format_only:
                self._pending = (predicted, true)
            self._seen += 1
            if self._output_dir is not None:
                self._write_png(sample, predicted)
            if self._writer is not None:
                self._write(self._writer, sample, predicted, true)

    def evaluate(self, size: int) -> dict[str, float]:
        """Add up what every process counted; return the figures.

        Args:
            size: pictures in the data set.
        """
        if self._counters is None:
            self._begin()
        if self._writer is not None:
            self._writer.close()
            barrier()
            if get_rank() == 0:
                self._finish(self._writer)
            barrier()
        # a distributed sampler repeats pictures to fill its last round: they count once
        if (self._seen - 1) * get_world_size() + get_rank() < size:
            self._count_pending()
        assert self._counters is not None
        everywhere = all_gather_object([counter.state() for counter in self._counters])
        self._counters = self._new_counters()
        for states in everywhere:
            for counter, state in zip(self._counters, states, strict=True):
                counter.add(state)
        metrics = {} if self._format_only else self.figures(*self._counters)
        self._counters = self._writer = self._pending = None
        self.results.clear()
        return {f"{self.prefix}/{k}" if self.prefix else k: v for k, v in metrics.items()}

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Return the figures of (prediction, truth) pairs, each (H, W)."""
        counters = self._new_counters()
        for predicted, true in results:
            for counter in counters:
                counter.update(predicted, true)
        return self.figures(*counters)

    def figures(self, confusion: Confusion, boundary: Confusion | None = None) -> dict[str, float]:
        """Return the figures of what was counted, in percent, without the prefix."""
        classes = self.dataset_meta["classes"]
        values = confusion.per_class(beta=self._beta)
        columns = list(dict.fromkeys(name for key in self._wanted for name in _FIGURES[key]))
        if isinstance(boundary, BoundaryConfusion):
            values["BoundaryIoU"] = boundary.iou()
            columns.append("BoundaryIoU")
        figures = dict(aAcc=100 * confusion.accuracy())
        for column in columns:
            shares = values[column]
            if self._nan_to_num is not None:
                shares = np.nan_to_num(shares, nan=self._nan_to_num)
            known = shares[~np.isnan(shares)]
            figures[f"m{column}"] = 100 * float(known.mean()) if known.size else float("nan")
            if self._classwise:
                figures |= {
                    f"{column}/{name}": 100 * float(share)
                    for name, share in zip(classes, shares, strict=True)
                }
        rows = [f"by class, in percent: {', '.join(columns)}"]
        for index, name in enumerate(classes):
            row = (100 * values[column][index] for column in columns)
            rows.append(f"  {name}: " + ", ".join("-" if v != v else f"{v:.2f}" for v in row))
        MMLogger.get_current_instance().info("\n".join(rows))
        return figures

    def _new_counters(self) -> list[Confusion]:
        classes = len(self.dataset_meta["classes"])
        counters = [Confusion(classes, ignore_index=self._ignore_index)]
        if self._boundary:
            counters.append(BoundaryConfusion(classes, ignore_index=self._ignore_index))
        return counters

    def _begin(self) -> None:
        self._counters, self._pending, self._seen = self._new_counters(), None, 0
        if self._predictions_dir is not None:
            self._writer = SegmentationWriter(
                self._predictions_dir,
                num_classes=len(self.dataset_meta["classes"]),
                rank=get_rank(),
                world_size=get_world_size(),
            )

    def _count_pending(self) -> None:
        if self._pending is not None and self._counters is not None:
            for counter in self._counters:
                counter.update(*self._pending)
        self._pending = None

    def _write_png(self, sample: Mapping[str, Any], predicted: Labels) -> None:
        assert self._output_dir is not None
        path = Path(self._output_dir) / f"{Path(sample['img_path']).stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        # back to the data set's own numbers, in which 0 is no class
        labels = predicted + 1 if sample.get("reduce_zero_label", False) else predicted
        Image.fromarray(labels.astype(np.uint8 if labels.max() < 256 else np.uint16)).save(path)

    def _write(
        self,
        writer: SegmentationWriter,
        sample: Mapping[str, Any],
        predicted: Labels,
        true: Labels | None,
    ) -> None:
        file = str(sample["img_path"])
        root = str(self._run.get("image_root") or "")
        if root and Path(file).is_relative_to(root):
            file = Path(file).relative_to(root).as_posix()
        height, width = predicted.shape
        labels = sample.get("seg_map_path")
        image = PredictedImage(file, file, height, width, labels=str(labels) if labels else None)
        calibration = None
        if true is not None and "seg_logits" in sample:
            calibration = _confidence_counts(
                sample["seg_logits"]["data"], predicted, true, self._ignore_index
            )
        writer.append(image, predicted, calibration)

    def _finish(self, writer: SegmentationWriter) -> None:
        meta = self.dataset_meta
        palette = meta.get("palette")
        label_map = meta.get("label_map")
        writer.finish(
            RunHeader(
                classes=tuple(meta["classes"]),
                palette=[list(map(int, colour)) for colour in palette] if palette else None,
                **self._run,
            ),
            reduce_zero_label=bool(meta.get("reduce_zero_label", False)),
            ignore_index=self._ignore_index,
            label_map={int(k): int(v) for k, v in label_map.items()} if label_map else None,
        )


def _map_of(content: Mapping[str, Any]) -> Labels:
    """Return the (H, W) class indices of what the hosts wrap as (1, H, W)."""
    data = content["data"]
    labels = data.detach().cpu().numpy() if isinstance(data, torch.Tensor) else np.asarray(data)
    labels = labels.reshape(labels.shape[-2:])
    return labels if np.issubdtype(labels.dtype, np.integer) else labels.astype(np.int64)


def _confidence_counts(
    logits: Any, predicted: Labels, true: Labels, ignore_index: int
) -> tuple[list[int], list[int]] | None:
    """Count pixels, and right ones, by their largest softmax probability; one-channel logits
    have none."""
    if len(logits) < 2:
        return None
    with torch.no_grad():
        largest = logits.amax(dim=0)
        # strip by strip, so that the exponentials take little room: (C, rows, W)
        total = torch.cat(
            [
                (rows - top).exp().sum(dim=0)
                for rows, top in zip(logits.split(64, dim=1), largest.split(64), strict=True)
            ]
        )
        bins = (CALIBRATION_BINS / total).long().clamp_(0, CALIBRATION_BINS - 1).cpu().numpy()
    kept = true != ignore_index
    right = kept & (predicted == true)
    counted = [np.bincount(bins[mask], minlength=CALIBRATION_BINS) for mask in (kept, right)]
    return counted[0].tolist(), counted[1].tolist()
