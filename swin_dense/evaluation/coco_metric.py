"""``swin_dense.CocoMetric``: COCO AP and AR under mmdet's names, from predictions on the disk.

Takes the options of mmdet's ``CocoMetric``. Each picture's results are written as they come, masks
as compressed RLE, so memory does not grow with the data set, and they are whole on the disk before
anything is measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from mmengine.dist import barrier, broadcast_object_list, get_rank, get_world_size
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from swin_dense.errors import UserError, did_you_mean
from swin_dense.evaluation.coco_backends import choose_backend
from swin_dense.evaluation.coco_scores import (
    IOU_THRESHOLDS,
    CocoScores,
    category_ids_of,
    read_annotations,
    score,
)
from swin_dense.evaluation.prediction_writers import DetectionWriter, RunHeader
from swin_dense.evaluation.predictions import DetectionPredictions, PredictedImage
from swin_dense.host.rle_masks import RleMasks
from swin_dense.registry import METRICS

_KINDS = ("bbox", "segm", "proposal", "proposal_fast")
_BOX_ITEMS = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
_T = TypeVar("_T")


@METRICS.register_module()
class CocoMetric(BaseMetric):
    """COCO evaluation with mmdet's options and names; see docs/evaluation.md.

    Args:
        ann_file: the COCO file.
        metric: of "bbox", "segm", "proposal" and "proposal_fast", one or several; the last two
            measure recall whatever the class.
        classwise: also report each class's AP, as ``NAME_precision``.
        proposal_nums: limits on detections per picture.
        iou_thrs: None is 0.5 to 0.95 by 0.05.
        metric_items: figures to report; None is mmdet's choice for each metric.
        format_only: write the predictions and measure nothing.
        outfile_prefix: where ``<prefix>.predictions`` goes, where ``predictions_dir`` is not given.
        backend: "auto" (the fastest), "hotcoco" or "pycocotools".
        predictions_dir: folder to leave the predictions in; None uses one that is deleted.
        run: further fields of the folder's ``index.json``: config, checkpoint, image_root.
        prefix: before each figure's name.
        sort_categories, use_mp_eval, backend_args, collect_device: accepted for mmdet's configs;
            classes are bound by name and results go over the disk, so they change nothing.

    Raises:
        UserError: an option or the annotation file does not fit.
    """

    default_prefix = "coco"

    def __init__(
        self,
        ann_file: str | None = None,
        metric: str | Sequence[str] = "bbox",
        *,
        classwise: bool = False,
        proposal_nums: Sequence[int] = (100, 300, 1000),
        iou_thrs: float | Sequence[float] | None = None,
        metric_items: Sequence[str] | None = None,
        format_only: bool = False,
        outfile_prefix: str | None = None,
        backend: str = "auto",
        predictions_dir: str | None = None,
        run: Mapping[str, Any] | None = None,
        prefix: str | None = None,
        sort_categories: bool = False,
        use_mp_eval: bool = False,
        backend_args: Mapping[str, Any] | None = None,
        collect_device: str = "cpu",
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self._kinds = [metric] if isinstance(metric, str) else list(metric)
        for kind in self._kinds:
            if kind not in _KINDS:
                raise UserError(
                    f"got metric {kind!r}{did_you_mean(kind, _KINDS)}; expected of {_KINDS}."
                )
        if ann_file is None:
            raise UserError("CocoMetric needs ann_file: the COCO file to measure against.")
        self._backend = choose_backend(backend)
        self._ann_file = str(ann_file)
        self._annotations = read_annotations(ann_file)
        self._sizes = {
            image["id"]: (image["height"], image["width"]) for image in self._annotations["images"]
        }
        self._classwise, self._format_only = classwise, format_only
        self._max_detections = tuple(sorted(proposal_nums))
        self._iou_thresholds = tuple(
            IOU_THRESHOLDS if iou_thrs is None else map(float, np.atleast_1d(iou_thrs))
        )
        self._items = metric_items
        if predictions_dir is None and outfile_prefix is not None:
            predictions_dir = f"{outfile_prefix}.predictions"
        self._predictions_dir = predictions_dir
        self._run = dict(run or {})
        self._writer: DetectionWriter | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._category_ids: list[int] = []
        self._dropped = 0

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Write the predictions of some pictures.

        Raises:
            UserError: for a picture or class that the annotation file has not, or masks of another
                size than the picture.
        """
        if self._writer is None:
            self._begin()
        assert self._writer is not None
        for sample in data_samples:
            image_id = sample["img_id"]
            if image_id not in self._sizes:
                raise UserError(
                    f"the data set has image {image_id!r}, which {self._ann_file} does not list. "
                    "The evaluator's ann_file must be the test data set's own."
                )
            height, width = (int(side) for side in sample["ori_shape"][:2])
            file = str(sample.get("img_path") or image_id)
            root = str(self._run.get("image_root") or "")
            if root and Path(file).is_relative_to(root):
                file = Path(file).relative_to(root).as_posix()
            image = PredictedImage(image_id, file, height, width)
            self._writer.append(image, self._to_results(image, sample["pred_instances"]))

    def evaluate(self, size: int) -> dict[str, float]:
        """Merge what every process wrote, measure it in the main one, and tell all.

        Args:
            size: pictures in the data set.

        Raises:
            UserError: in every process, where the main one met it.
        """
        if self._writer is None:
            self._begin()
        writer = self._writer
        assert writer is not None
        writer.close()
        barrier()
        metrics = _from_main(lambda: self._merge_and_measure(writer))
        self._writer, self._dropped = None, 0
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None
        self.results.clear()
        return metrics

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Measure COCO results, given as a list."""
        return self.measure(results)

    def measure(self, results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the figures of COCO results, without the prefix.

        Raises:
            UserError: classes that the annotation file has not, or masks that are missing.
        """
        logger = MMLogger.get_current_instance()
        classes = self.dataset_meta["classes"]
        category_ids = category_ids_of(self._annotations, classes)
        figures: dict[str, float] = {}
        for kind in self._kinds:
            proposals = kind.startswith("proposal")
            scores = score(
                self._annotations,
                results,
                iou_type="bbox" if proposals else kind,
                category_ids=category_ids,
                iou_thresholds=self._iou_thresholds,
                max_detections=self._max_detections,
                use_categories=not proposals,
                backend=self._backend,
            )
            stats = scores.stats()
            recalls = [name for name in stats if name.startswith("AR")]
            items = self._items or (recalls if proposals else _BOX_ITEMS)
            for item in items:
                if item not in stats:
                    raise UserError(
                        f"got metric item {item!r}{did_you_mean(item, stats)}; expected of "
                        f"{', '.join(stats)}."
                    )
                figures[item if proposals else f"{kind}_{item}"] = stats[item]
            logger.info(f"{kind} by {self._backend}: " + ", ".join(_shown(stats)))
            if self._classwise and not proposals:
                figures |= _log_classes(scores, classes, kind, several="segm" in self._kinds)
        return figures

    def _begin(self) -> None:
        folder = self._predictions_dir
        if folder is None:
            if get_rank() == 0:
                self._scratch = tempfile.TemporaryDirectory(prefix="swin_dense_")
            folder = _from_main(lambda: self._scratch.name if self._scratch else "")
        self._folder = Path(folder)
        self._category_ids = category_ids_of(self._annotations, self.dataset_meta["classes"])
        self._writer = DetectionWriter(folder, rank=get_rank(), world_size=get_world_size())

    def _to_results(self, image: PredictedImage, found: Mapping[str, Any]) -> list[dict[str, Any]]:
        boxes, scores, labels = (
            torch.as_tensor(found[key]).detach().cpu().numpy()
            for key in ("bboxes", "scores", "labels")
        )
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(self._category_ids):
            raise UserError(
                f"the model predicts class {labels.max()} on {image.file}, and the data set has "
                f"{len(self._category_ids)} classes. Set num_classes of the heads to that."
            )
        good = np.isfinite(scores) & np.isfinite(boxes).all(axis=1)
        self._dropped += int((~good).sum())
        masks = found.get("masks")
        if isinstance(masks, RleMasks):
            masks = masks.rles
        results = []
        for place in np.flatnonzero(good):
            left, top, right, bottom = map(float, boxes[place])
            result: dict[str, Any] = dict(
                image_id=image.id,
                category_id=self._category_ids[int(labels[place])],
                bbox=[left, top, right - left, bottom - top],
                score=float(scores[place]),
            )
            if masks is not None:
                result["segmentation"] = _to_rle(masks[int(place)], image)
            results.append(result)
        return results

    def _merge_and_measure(self, writer: DetectionWriter) -> dict[str, float]:
        if self._dropped:
            MMLogger.get_current_instance().warning(
                f"{self._dropped} predictions with a score or box that is no number were left out; "
                "the weights may have diverged"
            )
        classes = tuple(self.dataset_meta["classes"])
        palette = self.dataset_meta.get("palette")
        writer.finish(
            RunHeader(
                classes=classes,
                palette=[list(map(int, colour)) for colour in palette] if palette else None,
                annotations=self._ann_file,
                **self._run,
            )
        )
        if self._format_only:
            return {}
        results = DetectionPredictions.load(self._folder).results
        return {f"{self.prefix}/{name}": value for name, value in self.measure(results).items()}


def _from_main(compute: Callable[[], _T]) -> _T:
    """Return what ``compute`` gives in the main process, in all; an error there is raised in all,
    so that none waits for ever."""
    message: list[Any] = [None, None]
    if get_rank() == 0:
        try:
            message = [compute(), None]
        except Exception as error:
            if get_world_size() == 1:
                raise
            message = [None, error]
    broadcast_object_list(message)
    if message[1] is not None:
        raise message[1]
    return message[0]


def _to_rle(mask: Any, image: PredictedImage) -> dict[str, Any]:
    """Return one mask as compressed RLE with text counts, from pixels or any RLE."""
    from pycocotools import mask as coco_mask

    if isinstance(mask, Mapping):
        rle = dict(mask)
    else:
        pixels = mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else mask
        rle = coco_mask.encode(np.asfortranarray(pixels, dtype=np.uint8))
    size = [int(side) for side in rle["size"]]
    if size != [image.height, image.width]:
        raise UserError(
            f"a mask on {image.file} has size {size}; expected the picture's "
            f"{[image.height, image.width]} (height, width)."
        )
    counts = rle["counts"]
    return dict(size=size, counts=counts.decode() if isinstance(counts, bytes) else counts)


def _shown(figures: Mapping[str, float]) -> list[str]:
    return [f"{name} {value:.3f}" for name, value in figures.items()]


def _log_classes(
    scores: CocoScores, classes: Sequence[str], kind: str, *, several: bool
) -> dict[str, float]:
    """Log AP, AP50, AP75 and AP by size of each class; return the first of them."""
    figures = {}
    rows = [f"{kind} by class: AP, AP50, AP75, small, medium, large"]
    for index, name in enumerate(classes):
        ask = scores.average_precision
        row = [ask(category=index), *(ask(category=index, iou=iou) for iou in (0.5, 0.75))]
        row += [ask(category=index, area=area) for area in "sml"]
        rows.append(
            f"  {name}: " + ", ".join(f"{value:.3f}" if value >= 0 else "-" for value in row)
        )
        key = f"{kind}_{name}_precision" if several and kind == "segm" else f"{name}_precision"
        figures[key] = row[0] if row[0] >= 0 else float("nan")
    MMLogger.get_current_instance().info("\n".join(rows))
    return figures
