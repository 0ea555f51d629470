"""Parameters and multiply-accumulates of detectors and segmenters, module by module.

Counted are convolutions and matrix products, those of attention included; not norms, activations,
softmax, interpolation and RoIAlign. This is what papers on detection call "FLOPs". The dense parts
run on one image; heads on regions run as the usual counter runs them: the box head (in a cascade
each of them) on 1,000 proposals, the mask head (in a cascade each of them) on the first 100. The
auxiliary head of a segmenter has parameters but does not run, since it trains only.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from swin_dense.errors import UserError

NUM_BOX_PROPOSALS = 1_000
NUM_MASK_PROPOSALS = 100
_PARTS = (
    "backbone",
    "neck",
    "rpn_head",
    "roi_head",
    "bbox_head",
    "decode_head",
    "auxiliary_head",
)


@dataclass(frozen=True)
class ModuleCost:
    """What one module holds and does, with all that is inside it.

    Attributes:
        name: dotted, as in the state dict; "" is the whole model.
        parameters: numbers that training may change.
        macs: multiply-accumulates.
    """

    name: str
    parameters: int
    macs: int

    @property
    def depth(self) -> int:
        """Return how deep the module lies: 0 for the whole model."""
        return len(self.name.split(".")) if self.name else 0


def count_model(model: nn.Module, image_hw: tuple[int, int]) -> list[ModuleCost]:
    """Count a detector or segmenter on one RGB image of ``image_hw`` pixels.

    On the meta device this takes no memory and next to no time.

    Returns:
        One entry a module, the whole model first, in the order of ``named_modules``.

    Raises:
        UserError: a model of other parts than a detector's or segmenter's usual ones.
    """
    macs: dict[str, int] = dict.fromkeys((name for name, _ in model.named_modules()), 0)
    device = next(model.parameters()).device
    with torch.no_grad(), _counting_calls(model, macs):
        _run(model, torch.empty(1, 3, *image_hw, device=device))
    return [
        ModuleCost(name, sum(p.numel() for p in module.parameters()), macs[name])
        for name, module in model.named_modules()
    ]


def format_costs(costs: Iterable[ModuleCost], *, depth: int = 2) -> str:
    """Return a table of the modules down to ``depth`` that hold or do anything."""
    rows = [("module", "parameters", "MACs")]
    for cost in costs:
        if cost.depth <= depth and (cost.parameters or cost.macs):
            name = "  " * cost.depth + (cost.name or "all")
            rows.append((name, f"{cost.parameters / 1e6:.2f} M", f"{cost.macs / 1e9:.2f} G"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{name:{widths[0]}}  {held:>{widths[1]}}  {done:>{widths[2]}}" for name, held, done in rows
    )


@contextmanager
def _counting_calls(model: nn.Module, macs: dict[str, int]) -> Any:
    """Add to ``macs`` what every call of a module of ``model`` does.

    A module that is never called itself, because its owner calls what is inside it, gets the sum of
    that.
    """
    counter = FlopCounterMode(display=False)
    starts: list[int] = []
    called: set[str] = set()
    handles = []

    def hooks(name: str) -> tuple[Any, Any]:
        def before(module: nn.Module, inputs: Any) -> None:
            starts.append(counter.get_total_flops())

        def after(module: nn.Module, inputs: Any, output: Any) -> None:
            called.add(name)
            macs[name] += (counter.get_total_flops() - starts.pop()) // 2  # 2 FLOPs are one MAC

        return before, after

    for name, module in model.named_modules():
        before, after = hooks(name)
        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        with counter:
            yield
    finally:
        for handle in handles:
            handle.remove()
    for name in sorted(macs, key=lambda name: -name.count(".") if name else 1):
        if name not in called:
            start = f"{name}." if name else ""
            inside = [other for other in macs if other.startswith(start) and other != name]
            macs[name] = sum(macs[other] for other in inside if "." not in other[len(start) :])


def _run(model: nn.Module, images: Tensor) -> None:
    """Run once what a prediction runs, with region heads on proposals of a fixed number."""
    parts = dict(model.named_children())
    unknown = [name for name in parts if name not in _PARTS and len(list(parts[name].parameters()))]
    if "backbone" not in parts or unknown:
        found = f"the parts {', '.join(unknown)}" if unknown else "no backbone"
        raise UserError(
            f"{type(model).__name__} has {found}; expected a model whose parts are among "
            f"{', '.join(_PARTS)}. Other models cannot be counted here."
        )
    maps = parts["backbone"](images)
    maps = parts["neck"](maps) if "neck" in parts else maps
    for name in ("rpn_head", "bbox_head", "decode_head"):
        if name not in parts:
            continue
        try:
            parts[name](maps)
        except (TypeError, NotImplementedError) as error:
            raise UserError(
                f"{name} {type(parts[name]).__name__} does not run on feature maps alone "
                f"({error}), so it cannot be counted here."
            ) from error
    roi_head = parts.get("roi_head")
    if roi_head is not None:
        _run_on_regions(roi_head, images.device)


def _run_on_regions(roi_head: nn.Module, device: torch.device) -> None:
    kinds = (("bbox", NUM_BOX_PROPOSALS), ("mask", NUM_MASK_PROPOSALS))
    for kind, proposals in kinds:
        heads = _as_list(getattr(roi_head, f"{kind}_head", None))
        extractors = _as_list(getattr(roi_head, f"{kind}_roi_extractor", None))
        for index, head in enumerate(heads):
            extractor = extractors[index if len(extractors) > 1 else 0] if extractors else None
            if extractor is None or not hasattr(extractor, "roi_layers"):
                raise UserError(
                    f"the {kind} head {type(head).__name__} has no region extractor of its own, so "
                    "its input is not known here; expected SingleRoIExtractor."
                )
            height, width = extractor.roi_layers[0].output_size
            head(torch.empty(proposals, extractor.out_channels, height, width, device=device))


def _as_list(module: nn.Module | None) -> list[Any]:
    if module is None:
        return []
    return list(module) if isinstance(module, nn.ModuleList) else [module]
