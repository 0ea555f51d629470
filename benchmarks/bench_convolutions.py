"""Time the convolutions of necks and heads on the CPU against torch's own.

    python -m benchmarks.bench_convolutions [--rounds 7] [--out benchmarks/results]

The maps of an 800x1216 photograph in Mask R-CNN's FPN and mask head, those of a 512x512 crop in
UperNet, and a region proposal head whose loss draws 256 anchors. Both sides have the same
allocator, take turns, and must agree before anything is timed. torch's side gets channels-last
maps, its faster layout, and multiplies in oneDNN, as its convolutions do by themselves. A ratio is
the median of theirs / ours over the rounds: above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common import RESULTS, ratio, setting, table, take_turns, write
from swin_dense.engine.runtime import keep_large_allocations
from swin_dense.layers.convolution import replace_convolutions

LAYERS = {
    "FPN stride 4": ((1, 256, 200, 304), 256),
    "FPN stride 8": ((1, 256, 100, 152), 256),
    "FPN stride 16": ((1, 256, 50, 76), 256),
    "FPN stride 32": ((1, 256, 25, 38), 256),
    "mask head, 128 boxes": ((128, 256, 14, 14), 256),
    "UperNet, pyramid pooling": ((1, 2816, 16, 16), 512),
    "UperNet, fusion": ((1, 2048, 128, 128), 512),
    "UperNet, stride 4": ((1, 512, 128, 128), 512),
}
"""Maps (B, C, H, W) and output channels of 3 x 3 convolutions."""

ANCHORS = 256


@dataclass
class Row:
    """One line of the table; ``error`` is the greatest, in shares of the greatest value."""

    case: str
    dtype: str
    ours_ms: float
    theirs_ms: float
    ratio: float
    error: float


class ProposalHead(nn.Module):
    """The three layers of mmdet's and detectron2's region proposal network."""

    def __init__(self, channels: int = 256, anchors: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.score = nn.Conv2d(channels, anchors, 1)
        self.delta = nn.Conv2d(channels, 4 * anchors, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return scores and deltas of each anchor, (B, 5 * anchors, H, W)."""
        shared = F.relu(self.conv(maps))
        return torch.cat([self.score(shared), self.delta(shared)], dim=1)


def main() -> None:
    """Measure, print, write ``convolutions.json`` and ``convolutions.md``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.manual_seed(0)
    allocator = "mallopt" if keep_large_allocations() else "default"
    rows: list[Row] = []
    for name, (shape, outputs) in LAYERS.items():
        layer = nn.Conv2d(shape[1], outputs, 3, padding=1)
        rows.append(measure(f"{name} forward", layer, shape, options.rounds, None))
        rows.append(measure(f"{name} both", layer, shape, options.rounds, 1.0))
    shape = LAYERS["FPN stride 4"][0]
    share = ANCHORS / (shape[2] * shape[3])
    for dtype in (torch.float32, torch.bfloat16):
        head = ProposalHead()
        rows.append(measure("proposal head both", head, shape, options.rounds, share, dtype))
    facts = setting(allocator=allocator, rounds=options.rounds, anchors=ANCHORS)
    write(
        options.out,
        "convolutions",
        "Convolutions of necks and heads against torch's own",
        facts,
        [asdict(row) for row in rows],
        page(rows),
    )


def measure(
    name: str,
    theirs: nn.Module,
    shape: tuple[int, ...],
    rounds: int,
    share: float | None,
    dtype: torch.dtype = torch.float32,
) -> Row:
    """Time a module against itself with our convolutions.

    Args:
        name: of the row.
        theirs: of torch's own layers.
        shape: (B, C, H, W) of its input.
        rounds: turns of each side.
        share: of the places, those with a gradient; None for forward alone.
        dtype: float32, or bfloat16 by autocast.
    """
    ours = copy.deepcopy(theirs)
    replace_convolutions(ours)
    maps = torch.randn(shape).to(memory_format=torch.channels_last)
    keep = torch.rand(shape[0], 1, *shape[2:]) < (share or 0.0)
    noise = torch.randn(shape[0], 512, *shape[2:])
    noise = noise.to(memory_format=torch.channels_last)

    def run(model: nn.Module) -> Callable[[], list[Tensor]]:
        def forward() -> list[Tensor]:
            with torch.no_grad():
                return [model(maps)]

        def both() -> list[Tensor]:
            leaf = maps.detach().requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                out = model(leaf)
            grad = noise[:, : out.shape[1]].to(out.dtype) * keep
            return list(torch.autograd.grad(out, [leaf, *model.parameters()], grad))

        return forward if share is None else both

    sides = {"ours": run(ours), "theirs": run(theirs)}
    pairs = zip(sides["ours"](), sides["theirs"](), strict=True)
    error = max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in pairs)
    if error > (0.05 if dtype == torch.bfloat16 else 1e-4):
        raise AssertionError(f"{name}: values differ by {error:.1e} of the greatest")
    seconds = take_turns(sides, rounds)
    row = Row(
        case=name,
        dtype=str(dtype).removeprefix("torch."),
        ours_ms=round(statistics.median(seconds["ours"]) * 1e3, 2),
        theirs_ms=round(statistics.median(seconds["theirs"]) * 1e3, 2),
        ratio=round(ratio(seconds["theirs"], seconds["ours"]), 2),
        error=error,
    )
    print(*line_of(row), flush=True)
    return row


def line_of(row: Row) -> list[str]:
    """Return the cells of a row."""
    return [
        f"{row.case}, {row.dtype}",
        f"{row.ours_ms:.1f}",
        f"{row.theirs_ms:.1f}",
        f"{row.ratio:.2f}",
        f"{row.error:.0e}",
    ]


def page(rows: list[Row]) -> list[str]:
    """Return the table."""
    legend = (
        "Medians in milliseconds; ratio is theirs / ours, pair by pair; the greatest difference "
        "of any value or gradient in shares of the greatest."
    )
    header = ["case", "ours", "torch", "ratio", "difference"]
    return [legend, "", *table(header, [line_of(row) for row in rows])]


if __name__ == "__main__":
    main()
