"""Look at a data set as the model sees it: through pipeline and preprocessor, and back to RGB.

Letters: N instances; H, W the picture after the pipeline, padding included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from numpy.typing import NDArray

from swin_dense.data.preflight import check_paths
from swin_dense.engine.config import host_of, leaf_datasets
from swin_dense.errors import UserError, did_you_mean
from swin_dense.host.repairs import repair_hosts
from swin_dense.visualization.draw import draw_instances, draw_semantic
from swin_dense.visualization.images import RgbImage, read_image

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture with its annotations, in that picture's own pixels.

    Attributes:
        path: the photograph it came from.
        image: (H, W, 3) uint8 RGB.
        class_names: by index.
        boxes_xyxy: (N, 4); regions that training ignores are among them, with label -1.
        labels: (N,).
        masks: (N, H, W) bool, or None.
        label_map: (H, W), or None.
        ignore_index: the label of pixels without a class.
    """

    path: str
    image: RgbImage
    class_names: tuple[str, ...]
    boxes_xyxy: NDArray[np.float32] | None = None
    labels: NDArray[np.int64] | None = None
    masks: NDArray[np.bool_] | None = None
    label_map: NDArray[np.int64] | None = None
    ignore_index: int = 255

    def draw(self) -> RgbImage:
        """Return the picture with its annotations drawn."""
        picture = self.image
        if self.label_map is not None:
            picture = draw_semantic(
                picture,
                self.label_map,
                class_names=self.class_names,
                ignore_index=self.ignore_index,
            )
        if self.boxes_xyxy is not None and self.labels is not None and self.label_map is None:
            picture = draw_instances(
                picture,
                boxes_xyxy=self.boxes_xyxy,
                labels=self.labels,
                masks=self.masks,
                class_names=self.class_names,
            )
        return picture


class DatasetBrowser:
    """The data set of one split of a config.

    Args:
        cfg: a whole config; it is not changed.
        split: "train", "val" or "test".

    Raises:
        UserError: no such split, or its data is not there.
    """

    def __init__(self, cfg: Config, split: str) -> None:
        if split not in SPLITS:
            raise UserError(
                f"got split {split!r}{did_you_mean(split, SPLITS)}; expected one of {SPLITS}."
            )
        loader = cfg.get(f"{split}_dataloader")
        if not loader:
            raise UserError(f"the config has no {split}_dataloader, so there is nothing to show.")
        self._host = host_of(cfg)
        check_paths({f"{split}_dataloader": leaf for leaf in leaf_datasets(loader["dataset"])})
        repair_hosts()
        self._training = split == "train"
        dataset = deepcopy(loader["dataset"])
        if not self._training:
            # test pipelines load annotations last, at the photograph's own size; loaded first, they
            # follow the picture through resizing
            for leaf in leaf_datasets(dataset):
                leaf["pipeline"] = annotations_first(leaf.get("pipeline") or [])
        originals = deepcopy(dataset)
        _keep_loading_alone(originals)
        preprocessor = cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor")
        with DefaultScope.overwrite_default_scope(self._host):
            self._dataset = DATASETS.build(dataset)
            self._originals = DATASETS.build(originals)
            self._preprocess = MODELS.build(preprocessor) if preprocessor else None
        self._normalize = _find_normalize(dataset)
        self.class_names = tuple(self._dataset.metainfo.get("classes") or ())

    def __len__(self) -> int:
        return len(self._dataset)

    def sample(self, index: int) -> Sample:
        """Return a picture as the model gets it: resized, flipped, cropped, padded."""
        packed = self._dataset[index]
        _check_sizes(packed["inputs"], packed["data_samples"])
        if self._preprocess is None:
            inputs, info = packed["inputs"], packed["data_samples"]
            return self._collect(_to_rgb(inputs.numpy(), None, self._normalize), info)
        batch = dict(inputs=[packed["inputs"]], data_samples=[packed["data_samples"]])
        done = self._preprocess(batch, training=self._training)
        pixels = done["inputs"][0].cpu().numpy()
        return self._collect(
            _to_rgb(pixels, self._preprocess, self._normalize), done["data_samples"][0]
        )

    def original(self, index: int, path: str) -> Sample:
        """Return the photograph as annotated.

        Args:
            index: as for :meth:`sample`.
            path: the photograph that :meth:`sample` showed; a data set passes on to another one
            where its
                pipeline leaves no annotations, and then the photograph comes without any.
        """
        packed = self._originals[index]
        info = packed["data_samples"]
        if str(info.metainfo.get("img_path")) != path:
            return Sample(path, read_image(path), self.class_names)
        return self._collect(_to_rgb(packed["inputs"].numpy(), None, None), info)

    def _collect(self, image: RgbImage, info: Any) -> Sample:
        image_hw = (image.shape[0], image.shape[1])
        path = str(info.metainfo.get("img_path", ""))
        ignore_index = 255
        label_map = None
        if "gt_sem_seg" in info:
            content = info.gt_sem_seg
            labels = content.sem_seg if "sem_seg" in content else content.data
            ignore_index = int(content.metainfo.get("ignore_index", 255))
            label_map = _fit(labels.cpu().numpy().astype(np.int64)[:1], image_hw, ignore_index)[0]
        parts = [
            _instances(getattr(info, name), image_hw, ignored=name != "gt_instances")
            for name in ("gt_instances", "ignored_instances")
            if name in info and "bboxes" in getattr(info, name)
        ]
        if not parts:
            return Sample(
                path, image, self.class_names, label_map=label_map, ignore_index=ignore_index
            )
        masks = [part[2] for part in parts if part[2] is not None]
        return Sample(
            path,
            image,
            self.class_names,
            boxes_xyxy=np.concatenate([part[0] for part in parts]),
            labels=np.concatenate([part[1] for part in parts]),
            masks=np.concatenate(masks) if len(masks) == len(parts) else None,
            label_map=label_map,
            ignore_index=ignore_index,
        )


def type_name(step: Mapping[str, Any]) -> str:
    """Return the bare name of a config's ``type``, which may have a scope or be a class."""
    kind = step.get("type", "")
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]


def annotations_first(pipeline: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return a pipeline with its annotation loaders right behind its image loader."""
    loaders = [step for step in pipeline if "Annotations" in type_name(step)]
    others = [step for step in pipeline if "Annotations" not in type_name(step)]
    first = 1 + max(
        (index for index, step in enumerate(others) if type_name(step).startswith("LoadImage")),
        default=-1,
    )
    return [*others[:first], *loaders, *others[first:]]


def _keep_loading_alone(dataset: Any) -> None:
    """Take every step out of the pipelines but those that load and pack, in place."""
    if isinstance(dataset, list | tuple):
        for item in dataset:
            _keep_loading_alone(item)
        return
    if dataset.get("pipeline"):
        dataset["pipeline"] = [
            step for step in dataset["pipeline"] if type_name(step).startswith(("Load", "Pack"))
        ]
    for key in ("dataset", "datasets"):
        if key in dataset:
            _keep_loading_alone(dataset[key])


def _find_normalize(dataset: Any) -> Mapping[str, Any] | None:
    """Return the Normalize step of older pipelines, which normalise before the preprocessor."""
    for leaf in [dataset, *leaf_datasets(dataset)]:
        steps = leaf.get("pipeline") or [] if isinstance(leaf, Mapping) else []
        for step in steps:
            if type_name(step) == "Normalize":
                return dict(step)
    return None


def _to_rgb(pixels: NDArray[Any], preprocess: Any, normalize: Mapping[str, Any] | None) -> RgbImage:
    """Undo normalisation and channel order: (C, H, W) to (H, W, 3) uint8 RGB."""
    image = pixels.astype(np.float32)
    is_rgb = False
    if preprocess is not None:
        if getattr(preprocess, "_enable_normalize", False):
            image = image * preprocess.std.cpu().numpy() + preprocess.mean.cpu().numpy()
        swaps = ("_channel_conversion", "channel_conversion")
        is_rgb = any(bool(getattr(preprocess, name, False)) for name in swaps)
    if normalize is not None:
        mean, std = (np.array(normalize[key], np.float32)[:, None, None] for key in ("mean", "std"))
        image = image * std + mean
        is_rgb = is_rgb != bool(normalize.get("to_rgb", True))
    if len(image) not in (1, 3):
        image = image[:3] if len(image) > 3 else image[:1]
    if len(image) == 3 and not is_rgb:
        image = image[::-1]
    shown = np.rint(np.clip(image, 0, 255)).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(np.repeat(shown, 3, axis=2) if shown.shape[2] == 1 else shown)


def _instances(
    found: Any, image_hw: tuple[int, int], *, ignored: bool
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_] | None]:
    boxes = getattr(found.bboxes, "tensor", found.bboxes).cpu().numpy().astype(np.float32)
    boxes = boxes.reshape(-1, 4)
    labels = np.full(len(boxes), -1, np.int64)
    if not ignored:
        labels = found.labels.cpu().numpy().astype(np.int64)
    if "masks" not in found:
        return boxes, labels, None
    masks = found.masks
    stack = masks.to_ndarray() if hasattr(masks, "to_ndarray") else masks.cpu().numpy()
    return boxes, labels, _fit(stack.astype(bool), image_hw, False)


def _check_sizes(inputs: Any, info: Any) -> None:
    """Refuse annotations of another size than the (C, H, W) picture they come with."""
    expected = tuple(inputs.shape[-2:])
    found = []
    if "gt_sem_seg" in info:
        found.append(tuple(next(iter(info.gt_sem_seg.values())).shape[-2:]))
    if "gt_instances" in info and "masks" in info.gt_instances:
        masks = info.gt_instances.masks
        found.append((masks.height, masks.width))
    for image_hw in found:
        if image_hw != expected:
            raise UserError(
                f"{info.metainfo.get('img_path')}: the pipeline gives a picture of {expected} with "
                f"masks or labels of {image_hw}; expected the same size. In a train pipeline "
                "LoadAnnotations must come before Resize, RandomCrop and RandomFlip, so that they "
                "change both."
            )


def _fit(stack: NDArray[Any], image_hw: tuple[int, int], fill: int) -> NDArray[Any]:
    """Pad (N, h, w) on the right and below to the picture's size, as the picture was padded."""
    below, right = image_hw[0] - stack.shape[1], image_hw[1] - stack.shape[2]
    return np.pad(stack, ((0, 0), (0, below), (0, right)), constant_values=fill)
