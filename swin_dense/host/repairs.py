"""Repairs of the hosts' known holes, each with its reason; applied before a model is built."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, wraps
from typing import Any

from swin_dense.checkpoints.read import allow_globals, read_checkpoint
from swin_dense.errors import UserError, did_you_mean
from swin_dense.host import mask_pasting, mask_targets, segmentation_loss, sliding_windows


@cache
def repair_hosts() -> None:
    """Apply every repair; a second call does nothing."""
    _load_checkpoints_safely()
    _bind_coco_classes_by_name()
    _name_images_that_do_not_decode()
    _let_mmdet_swin_return_itself()
    _let_logits_lie_class_by_class()
    mask_pasting.install()
    mask_targets.install()
    segmentation_loss.install()
    sliding_windows.install()


def _load_checkpoints_safely() -> None:
    """mmengine's own checkpoints hold its HistoryBuffer and numpy scalars, which ``weights_only``
    refuses.

    Allow exactly these, none of which can run foreign code, and read every local file with our
    errors.
    """
    from mmengine.logging.history_buffer import HistoryBuffer
    from mmengine.runner.checkpoint import CheckpointLoader

    allow_globals([HistoryBuffer])

    def statistic_of_history(owner: Any, name: str) -> Any:
        """Stand in for ``getattr``, by which a HistoryBuffer's pickle names its own methods."""
        if owner is not HistoryBuffer or name not in ("mean", "max", "min", "current"):
            raise UserError(
                f"the checkpoint calls getattr for {name!r} of {owner!r}, which no mmengine "
                "checkpoint needs; it was refused, since unpickling it could run code."
            )
        return getattr(owner, name)

    allow_globals([(statistic_of_history, "builtins.getattr")])

    def load_from_local(filename: str, map_location: Any = None) -> Any:
        return read_checkpoint(filename, map_location=map_location)

    def load_from_http(filename: str, map_location: Any = None, **unused: Any) -> Any:
        return read_checkpoint(filename, map_location=map_location)

    CheckpointLoader.register_scheme("", loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(("http://", "https://"), loader=load_from_http, force=True)


def _bind_coco_classes_by_name() -> None:
    """mmdet asks COCO for the ids of the config's classes and takes them in the JSON's order.

    Then ``classes=("dog", "cat")`` on a JSON with cat first swaps the two in silence, and a class
    that is misspelt drops out in silence and shifts all after it. Ask one by one, and refuse
    unknown names.
    """
    from mmdet.datasets.api_wrappers import COCO

    original = COCO.get_cat_ids

    @wraps(original)
    def get_cat_ids(
        self: Any,
        cat_names: Sequence[str] | str = (),
        sup_names: Sequence[str] = (),
        cat_ids: Sequence[int] = (),
    ) -> list[int]:
        if not cat_names or sup_names or cat_ids:
            return list(original(self, cat_names or [], sup_names or [], cat_ids or []))
        wanted = [cat_names] if isinstance(cat_names, str) else list(cat_names)
        by_name: dict[str, int] = {}
        for category in self.dataset["categories"]:
            by_name.setdefault(category["name"], category["id"])
        unknown = [name for name in wanted if name not in by_name]
        if unknown:
            shown = ", ".join(list(by_name)[:8]) + (", ..." if len(by_name) > 8 else "")
            raise UserError(
                f"{len(unknown)} of the {len(wanted)} classes of the config are not in the "
                "annotation file: "
                f"{', '.join(map(repr, unknown[:5]))}{did_you_mean(unknown[0], by_name)}. The "
                "file has "
                f"{len(by_name)}: {shown}. Set metainfo=dict(classes=(...)) of each data set to "
                "names "
                "from the file, and num_classes of the heads to their count."
            )
        return [by_name[name] for name in wanted]

    COCO.get_cat_ids = get_cat_ids


def _name_images_that_do_not_decode() -> None:
    """A broken image or label map ends in an assert or AttributeError in a worker: name it."""
    import mmdet.datasets.transforms.loading as mmdet_loading
    import mmseg.datasets.transforms.loading as mmseg_loading
    from mmcv.transforms import LoadImageFromFile

    def guarded(method: Any, path_key: str, what: str) -> Any:
        @wraps(method)
        def call(self: Any, results: dict[str, Any]) -> Any:
            try:
                return method(self, results)
            except FileNotFoundError as error:
                raise UserError(
                    f"{what} {results.get(path_key)} does not exist. Check data_root and "
                    "data_prefix."
                ) from error
            except (AssertionError, AttributeError, OSError, ValueError) as error:
                if isinstance(error, UserError):
                    raise
                raise UserError(
                    f"{what} {results.get(path_key)} could not be read ({type(error).__name__}: "
                    f"{error}). "
                    "Is it an image, and complete? Replace it or take it out of the annotations."
                ) from error

        return call

    LoadImageFromFile.transform = guarded(LoadImageFromFile.transform, "img_path", "image")
    for loading in (mmdet_loading, mmseg_loading):
        annotations = loading.LoadAnnotations
        if hasattr(annotations, "_load_seg_map"):
            annotations._load_seg_map = guarded(
                annotations._load_seg_map, "seg_map_path", "label map"
            )


def _let_mmdet_swin_return_itself() -> None:
    """``train()`` of the hosts' Swin returns None, so ``model.eval()`` of one loses the model."""
    import mmdet.models.backbones.swin as mmdet_swin
    import mmseg.models.backbones.swin as mmseg_swin

    for module in (mmdet_swin, mmseg_swin):
        original = module.SwinTransformer.train

        def train(self: Any, mode: bool = True, original: Any = original) -> Any:
            original(self, mode)
            return self

        module.SwinTransformer.train = train


def _let_logits_lie_class_by_class() -> None:
    """mmseg resizes logits to the labels' size before the loss. Lie they channels last, as CPU
    convolutions leave them, then softmax copies them at that size, 16 times larger, back and forth.
    """
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead

    original = BaseDecodeHead.cls_seg

    @wraps(original)
    def cls_seg(self: Any, feat: Any) -> Any:
        return original(self, feat).contiguous()

    BaseDecodeHead.cls_seg = cls_seg
