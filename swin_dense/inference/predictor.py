"""A trained detector or segmenter as a function of photographs.

It runs the hosts' own test pipeline and ``model.test_step``, so it predicts what evaluation scores.
Letters: N instances; H, W the photograph as its file's loader returns it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from numpy.typing import NDArray
from torch import nn

from swin_dense.checkpoints.read import read_checkpoint
from swin_dense.engine.browse import type_name
from swin_dense.engine.config import host_of, leaf_datasets, load_config
from swin_dense.errors import UserError
from swin_dense.evaluation.analysis.thresholds import META_KEY
from swin_dense.host.repairs import repair_hosts
from swin_dense.host.rle_masks import RleMasks
from swin_dense.layers.convolution import replace_convolutions
from swin_dense.visualization.draw import draw_instances, draw_semantic
from swin_dense.visualization.images import RgbImage, as_rgb

Picture = str | Path | NDArray[np.generic]

_DERIVED = re.compile(
    r"(relative_position_index|relative_coords_table|attn_mask|num_batches_tracked)$"
)
"""Buffers that a model computes by itself: files of other versions have them or have them not."""

_SIZE_MISMATCH = re.compile(
    r"size mismatch for (\S+): .*?Size\((.*?)\) from checkpoint.*?Size\((.*?)\)"
)
_SHOWN = 4

DEFAULT_SCORE = 0.3
"""The least score that counts where neither the caller nor the checkpoint names one."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model found in one photograph, in that photograph's own pixels.

    Attributes:
        image_hw: height and width of the photograph.
        class_names: by index.
        boxes_xyxy: (N, 4) float32 left, top, right, bottom; None from a segmenter.
        scores: (N,) float32, best first; None from a segmenter.
        labels: (N,) int64 class indices; None from a segmenter.
        rle_masks: (N, H, W), which stay compressed: ``rle_masks[2]`` decodes one, a tensor (H, W),
            ``rle_masks.rles`` are COCO run lengths; None where the model gives no masks.
        label_map: (H, W) int32 class indices; None from a detector.
        least_scores: (classes,) the score that a detection of each class needs, where the
            checkpoint has thresholds that were chosen on test data; else None.
    """

    image_hw: tuple[int, int]
    class_names: tuple[str, ...]
    boxes_xyxy: NDArray[np.float32] | None = None
    scores: NDArray[np.float32] | None = None
    labels: NDArray[np.int64] | None = None
    rle_masks: RleMasks | None = None
    label_map: NDArray[np.int32] | None = None
    least_scores: NDArray[np.float32] | None = None

    @cached_property
    def masks(self) -> NDArray[np.bool_] | None:
        """All masks as pixels, (N, H, W) bool, N x H x W bytes; decoded when first asked for."""
        return None if self.rle_masks is None else self.rle_masks.numpy()

    def confident(self, score_threshold: float | None = None) -> NDArray[np.bool_]:
        """Return which detections count, (N,): those that reach the threshold.

        Args:
            score_threshold: one for all classes; where it is None, the checkpoint's own for each
                class, or 0.3 where it has none.
        """
        assert self.scores is not None
        assert self.labels is not None
        if score_threshold is None and self.least_scores is not None:
            return np.asarray(self.scores >= self.least_scores[self.labels], np.bool_)
        least = DEFAULT_SCORE if score_threshold is None else score_threshold
        return np.asarray(self.scores >= least, np.bool_)

    def draw(self, image: NDArray[np.generic], *, score_threshold: float | None = None) -> RgbImage:
        """Return the prediction drawn on its photograph, (H, W, 3) uint8 RGB.

        A small photograph comes back enlarged, see :mod:`swin_dense.visualization.draw`.

        Args:
            image: the photograph.
            score_threshold: as :meth:`confident` takes it.

        Raises:
            UserError: ``image`` is of another size than the one predicted on.
        """
        photo = as_rgb(image)
        if photo.shape[:2] != self.image_hw:
            raise UserError(
                f"got a picture of {photo.shape[:2]} for a prediction on {self.image_hw}; expected "
                "the same photograph. A turned one was perhaps read without its EXIF orientation."
            )
        if self.label_map is not None:
            return draw_semantic(photo, self.label_map, class_names=self.class_names)
        assert self.boxes_xyxy is not None
        assert self.scores is not None
        assert self.labels is not None
        kept = self.confident(score_threshold)
        return draw_instances(
            photo,
            boxes_xyxy=self.boxes_xyxy[kept],
            labels=self.labels[kept],
            scores=self.scores[kept],
            masks=None if self.rle_masks is None else self.rle_masks[kept],
            class_names=self.class_names,
            score_threshold=0.0,
        )


class Predictor:
    """A model of a config with a checkpoint's weights, ready to be called.

    Example::

        predictor = Predictor("mask_rcnn/mask_rcnn_swin_t_p4_w7_fpn_1x_coco.py", "epoch_12.pth")
        prediction = predictor("street.jpg")
        save_png("street.png", prediction.draw(read_image("street.jpg")))

    Args:
        config: a config, its path or its name.
        checkpoint: path or URL; None leaves random weights, which is for trials only.
        device: such as "cpu" or "cuda:0"; the machine's best by default.
        cfg_options: overrides of config keys, a mapping of dotted keys or ``key=value`` strings.

    Attributes:
        model: the network, in evaluation mode.
        class_names: from the checkpoint where it tells, else from the config's data set.
        least_scores: (classes,) from the checkpoint, see ``tools/test.py --save-thresholds``; None
            where it has none.

    Raises:
        UserError: no such config or checkpoint, or one that does not fit the other.
    """

    def __init__(
        self,
        config: Config | str | Path,
        checkpoint: str | Path | None = None,
        *,
        device: str | torch.device | None = None,
        cfg_options: Mapping[str, Any] | Sequence[str] | None = None,
    ) -> None:
        if isinstance(config, Config):
            cfg = config.copy()
            if cfg_options:
                raise UserError(
                    "cfg_options go with a config's path; change a loaded config itself."
                )
        else:
            cfg = load_config(config, cfg_options)
        self._host = host_of(cfg)
        # read first: a wrong path is told at once, before the model is built
        content = None if checkpoint is None else _read(checkpoint)
        repair_hosts()
        with _scope(self._host):
            from mmengine.registry import MODELS

            model = revert_sync_batchnorm(MODELS.build(cfg.model))
            replace_convolutions(model)
            self._from_file = _build_pipeline(cfg, self._host, from_file=True)
            self._from_array = _build_pipeline(cfg, self._host, from_file=False)
            names = _names_in_config(cfg, self._host)
        if content is not None:
            _load_weights(model, content, checkpoint)
            names = _names_in_checkpoint(content) or names
        self.class_names: tuple[str, ...] = tuple(names or ())
        self.least_scores = _least_scores(content or {}, self.class_names)
        self.model: Any = _to_device(model, device).eval()

    @overload
    def __call__(self, images: str | Path | NDArray[Any]) -> Prediction: ...

    @overload
    def __call__(self, images: list[Any] | tuple[Any, ...]) -> list[Prediction]: ...

    def __call__(self, images: Picture | Sequence[Picture]) -> Prediction | list[Prediction]:
        """Return the prediction for a photograph, or a list of them for a list.

        Photographs are taken one at a time, at the size that the test pipeline gives each.

        Args:
            images: a path, which the config's own loader reads, or an array (H, W, 3) or (H, W)
            uint8,
                RGB as :func:`swin_dense.visualization.images.read_image` returns it.

        Raises:
            UserError: a file that is missing or does not decode, or an array of another kind.
        """
        if isinstance(images, str | Path | np.ndarray):
            return self._predict(images)
        return [self._predict(image) for image in images]

    def _predict(self, image: Picture) -> Prediction:
        if isinstance(image, np.ndarray):
            bgr = np.ascontiguousarray(as_rgb(image)[..., ::-1])  # the hosts' order
            data = self._from_array(dict(img=bgr, img_id=0))
        else:
            path = Path(os.path.expanduser(image))
            if not path.is_file():
                kind = "a folder" if path.is_dir() else "nothing"
                raise UserError(
                    f"no image at {path}: found {kind} there, expected a file. Check the path."
                )
            data = self._from_file(dict(img_path=str(path), img_id=0))
        batch = {key: [value] for key, value in data.items()}
        with torch.no_grad():
            result = self.model.test_step(batch)[0]
        return replace(_to_prediction(result, self.class_names), least_scores=self.least_scores)


@contextmanager
def _scope(host: str) -> Iterator[None]:
    """Resolve bare type names in ``host``, and leave the process's own default as it was."""
    with DefaultScope.overwrite_default_scope(host):
        yield


def _read(checkpoint: str | Path) -> Mapping[str, Any]:
    repair_hosts()  # allows the classes that mmengine's checkpoints hold
    content = read_checkpoint(checkpoint)
    if not isinstance(content, Mapping) or not content:
        raise UserError(
            f"{checkpoint} holds a {type(content).__name__}; expected a checkpoint of a run, with "
            "a state_dict. Training leaves them in its work dir."
        )
    return content


def _build_pipeline(cfg: Config, host: str, *, from_file: bool) -> Any:
    """Return the config's test pipeline without annotations, reading files or taking arrays."""
    from mmcv.transforms import Compose

    loader = cfg.get("test_dataloader") or cfg.get("val_dataloader")
    leaves = leaf_datasets(loader["dataset"]) if loader else []
    steps = (leaves[0].get("pipeline") if leaves else None) or cfg.get("test_pipeline")
    if not steps:
        raise UserError(
            "the config has no test pipeline; expected test_dataloader.dataset.pipeline or "
            "test_pipeline, which says how a photograph is prepared."
        )
    kept = [dict(step) for step in steps if "Annotations" not in type_name(step)]
    if not from_file:
        for step in kept:
            if type_name(step) == "LoadImageFromFile":
                to_float32 = step.get("to_float32", False)
                step.clear()
                step.update(type=f"{host}.LoadImageFromNDArray", to_float32=to_float32)
    return Compose(kept)


def _names_in_config(cfg: Config, host: str) -> Sequence[str] | None:
    from mmengine.registry import DATASETS

    loaders = [cfg.get(f"{split}_dataloader") for split in ("test", "val", "train")]
    for loader in filter(None, loaders):
        for leaf in leaf_datasets(loader["dataset"]):
            named = (leaf.get("metainfo") or {}).get("classes")
            if named is None:
                kind = leaf.get("type")
                with DATASETS.switch_scope_and_registry(host) as registry:
                    dataset_class = registry.get(kind) if isinstance(kind, str) else kind
                named = (getattr(dataset_class, "METAINFO", None) or {}).get("classes")
            if named:
                return _as_names(named)
    return None


def _names_in_checkpoint(content: Mapping[str, Any]) -> Sequence[str] | None:
    meta = content.get("meta") or {}
    dataset = {str(key).lower(): value for key, value in (meta.get("dataset_meta") or {}).items()}
    return _as_names(dataset.get("classes") or meta.get("CLASSES"))


def _least_scores(
    content: Mapping[str, Any], class_names: Sequence[str]
) -> NDArray[np.float32] | None:
    kept = (content.get("meta") or {}).get(META_KEY)
    if not kept:
        return None
    own = kept["per_class"]
    return np.array([own.get(name, kept["overall"]) for name in class_names], np.float32)


def _as_names(named: Any) -> Sequence[str] | None:
    return [named] if isinstance(named, str) else named


def _load_weights(model: nn.Module, content: Mapping[str, Any], source: Any) -> None:
    """Fill every parameter of ``model``.

    Raises:
        UserError: some are missing, left over or of another shape; derived buffers apart.
    """
    state = content.get("state_dict", content)
    state = {str(key).removeprefix("module."): value for key, value in state.items()}
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
        wrong_shape: list[str] = []
    except RuntimeError as error:
        missing, unexpected = [], []
        wrong_shape = [
            f"{name} is {found} in the file and {expected} in the model"
            for name, found, expected in _SIZE_MISMATCH.findall(str(error))
        ]
        if not wrong_shape:
            raise UserError(f"{source} does not load: {error}") from error
    problems = []
    for what, names in (
        ("of another shape", wrong_shape),
        ("missing in the file", [name for name in missing if not _DERIVED.search(name)]),
        ("unknown to the model", [name for name in unexpected if not _DERIVED.search(name)]),
    ):
        if names:
            shown = "; ".join(names[:_SHOWN]) + ("; ..." if len(names) > _SHOWN else "")
            problems.append(f"{len(names)} {what} ({shown})")
    if problems:
        total = len(model.state_dict())
        raise UserError(
            f"{source} does not fit the config: of {total} tensors "
            + ", ".join(problems)
            + ". Expected a checkpoint that was trained with this config; where only the number of "
            "classes differs, set num_classes of the heads."
        )


def _to_device(model: nn.Module, device: str | torch.device | None) -> nn.Module:
    try:
        return model.to(device or get_device())
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device {device} does not work here ({str(error).splitlines()[0]}). Use cpu, or leave "
            "it out."
        ) from error


def _to_prediction(result: Any, class_names: tuple[str, ...]) -> Prediction:
    height, width = (int(side) for side in result.ori_shape[:2])
    if "pred_sem_seg" in result:
        label_map = (
            result.pred_sem_seg.data[0].cpu().numpy().astype(np.int32)
        )  # (1, H, W) -> (H, W)
        return Prediction((height, width), class_names, label_map=label_map)
    if "pred_instances" not in result:
        raise UserError(
            f"the model predicts {', '.join(result.keys())}; expected instances or one label map."
        )
    found = result.pred_instances.cpu()
    return Prediction(
        (height, width),
        class_names,
        boxes_xyxy=found.bboxes.numpy().astype(np.float32).reshape(-1, 4),
        scores=found.scores.numpy().astype(np.float32),
        labels=found.labels.numpy().astype(np.int64),
        rle_masks=RleMasks.encode(found.masks) if "masks" in found else None,
    )
