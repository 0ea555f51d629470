"""Masks that stay COCO run lengths until somebody looks at their pixels.

A mask of 24 megapixels is 24 MB as pixels and a few kB as run lengths. :class:`RleMasks` is a
``torch.Tensor`` to everything that takes one, so that results of a detector keep their shape, type
and methods; only its memory is that of the run lengths.
Letters: N instances; H, W the picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

_aten: Any = torch.ops.aten
_PLACES = (torch.int64, torch.int32, torch.int16, torch.int8)


class RleMasks(Tensor):
    """Masks (N, H, W) of type bool, kept as compressed COCO run lengths.

    Picking some of them, moving to a device, copying, joining and pickling leave them compressed.
    One mask by its number is a plain tensor (H, W), a copy; whoever iterates has one at a time.
    Every other operation decodes all of them first, and so needs N x H x W bytes.

    Args:
        rles: N mappings with ``size`` [H, W] and compressed ``counts``, as pycocotools has them.
        image_hw: height and width, which N = 0 could not tell.
        device: where decoded masks go.

    Attributes:
        rles: the run lengths, a tuple; not to be changed in place.
    """

    rles: tuple[dict[str, Any], ...]

    # what Python calls on a subclass goes straight to __torch_dispatch__
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(
        cls,
        rles: Iterable[Mapping[str, Any]],
        image_hw: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> RleMasks:
        """Wrap run lengths; see the class."""
        own = tuple(dict(rle) for rle in rles)
        height, width = map(int, image_hw)
        assert all(list(rle["size"]) == [height, width] for rle in own)
        self: RleMasks = Tensor._make_wrapper_subclass(
            cls, (len(own), height, width), dtype=torch.bool, device=torch.device(device)
        )
        self.rles = own
        return self

    @classmethod
    def encode(cls, masks: Tensor | NDArray[Any]) -> RleMasks:
        """Return masks (N, H, W), of which every pixel but 0 belongs to the instance."""
        if isinstance(masks, cls):
            return masks
        device = masks.device if isinstance(masks, Tensor) else "cpu"
        rles = []
        for mask in masks:
            pixels = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else mask
            rles.append(coco_mask.encode(np.asfortranarray(pixels != 0, dtype=np.uint8)))
        return cls(rles, masks.shape[1:], device)

    def decode(self) -> Tensor:
        """Return all masks as a plain tensor (N, H, W) of type bool, N x H x W bytes."""
        pixels = torch.zeros(tuple(self.shape), dtype=torch.bool)
        for place, rle in enumerate(self.rles):
            pixels[place] = _pixels(rle)
        return pixels.to(self.device)

    def numpy(self, *, force: bool = False) -> NDArray[np.bool_]:
        """Return all masks as an array (N, H, W) of type bool."""
        return self.decode().numpy(force=force)

    def tolist(self) -> list[Any]:
        """Return the pixels as nested lists."""
        return list(self.decode().tolist())

    def __dlpack__(self, **options: Any) -> Any:
        return self.decode().__dlpack__(**options)

    def share_memory_(self) -> RleMasks:
        """Return the masks as they are; other processes get the run lengths."""
        return self

    def __getitem__(self, index: Any) -> Tensor:
        if isinstance(index, slice):
            return self._pick(range(len(self))[index])
        first, *rest = index if isinstance(index, tuple) and index else (index,)
        if isinstance(first, int | np.integer) and not isinstance(first, bool):
            mask = self._one(int(first))
            return mask[tuple(rest)] if rest else mask
        if not rest and isinstance(first, list | np.ndarray | Tensor):
            wanted = torch.as_tensor(first, device="cpu")
            if wanted.dtype == torch.bool and wanted.dim() == 1:
                return self._pick(torch.arange(len(self))[wanted].tolist())
            if wanted.dim() == 1 and (not len(wanted) or wanted.dtype in _PLACES):
                return self._pick(torch.arange(len(self))[wanted.long()].tolist())
        return self.decode()[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        pixels = self.decode()
        pixels[index] = value
        self.rles = RleMasks.encode(pixels).rles

    def __iter__(self) -> Iterator[Tensor]:
        return (self._one(place) for place in range(len(self)))

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"RleMasks(shape={tuple(self.shape)}, device={str(self.device)!r})"

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return RleMasks, (self.rles, tuple(self.shape[1:]), str(self.device))

    def __deepcopy__(self, memo: dict[int, Any]) -> RleMasks:
        return self._like(self.rles)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Keep what copies and moves compressed; decode for all else."""
        kwargs = dict(kwargs or {})
        packet = func.overloadpacket
        if packet in (_aten.to, _aten.contiguous):  # only inference_mode lets them come so far
            return func.decompose(*args, **kwargs)
        if packet in (_aten.detach, _aten.alias, _aten.clone, _aten.lift_fresh):
            return args[0]._like(args[0].rles)
        if packet is _aten._to_copy and kwargs.get("dtype") in (None, torch.bool):
            return RleMasks(args[0].rles, args[0].shape[1:], kwargs.get("device") or args[0].device)
        if packet is _aten.cat and _joins_whole_masks(*args, **kwargs):
            return args[0][0]._like([rle for masks in args[0] for rle in masks.rles])
        changed = [value for value in _written(func, args, kwargs) if isinstance(value, RleMasks)]
        if len(changed) > 1:
            raise TypeError(f"{func} writes to several RleMasks; decode() them first")
        plain = {id(masks): masks.decode() for masks in changed}
        result = func(*_decoded(args, plain), **_decoded(kwargs, plain))
        if changed:
            changed[0].rles = RleMasks.encode(plain[id(changed[0])]).rles
            return changed[0]
        return result

    def _like(self, rles: Iterable[Mapping[str, Any]]) -> RleMasks:
        return RleMasks(rles, self.shape[1:], self.device)

    def _pick(self, places: Iterable[int]) -> RleMasks:
        return self._like([self.rles[place] for place in places])

    def _one(self, place: int) -> Tensor:
        if not -len(self) <= place < len(self):
            raise IndexError(f"mask {place} of {len(self)}")
        return _pixels(self.rles[place]).to(self.device)


def _pixels(rle: Mapping[str, Any]) -> Tensor:
    by_columns = coco_mask.decode(rle).T
    # (W, H) -> (H, W), ten times as fast as numpy's copy
    return torch.from_numpy(cv2.transpose(by_columns)).view(torch.bool)


def _joins_whole_masks(tensors: Sequence[Tensor], dim: int = 0) -> bool:
    return dim in (0, -3) and all(
        isinstance(each, RleMasks) and each.shape[1:] == tensors[0].shape[1:] for each in tensors
    )


def _written(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the arguments that an operation changes in place."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield args[place] if place < len(args) else kwargs.get(argument.name)


def _decoded(value: Any, plain: Mapping[int, Tensor]) -> Any:
    """Return ``value`` with pixels for run lengths, inside lists and mappings too."""
    if isinstance(value, RleMasks):
        return plain[id(value)] if id(value) in plain else value.decode()
    if isinstance(value, list | tuple):
        return type(value)(_decoded(each, plain) for each in value)
    if isinstance(value, dict):
        return {key: _decoded(each, plain) for key, each in value.items()}
    return value
