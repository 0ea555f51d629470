"""Time RoIAlign and NMS against compiled mmcv, on the levels and box counts of a detector.

    python -m benchmarks.bench_ops [--rounds 9] [--threads 2] [--out benchmarks/results]

Run it in an environment with a compiled mmcv (``pip install mmcv==2.1.0``) to fill its column; with
mmcv-lite the column stays empty. Both sides run in one process with the same allocator, take turns,
and must agree before anything is timed. A ratio is the median of theirs / ours over the rounds:
above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import RESULTS, ratio, setting, table, take_turns, write
from swin_dense import ops
from swin_dense.engine.runtime import keep_large_allocations

IMAGE_HW = (800, 1216)
CHANNELS = 256
# sides in pixels of the boxes that FPN sends to each level: finest scale 56, doubling
LEVELS = {4: (16.0, 112.0), 8: (112.0, 224.0), 16: (224.0, 448.0), 32: (448.0, 900.0)}
ROIS = {7: 512, 14: 128}
"""Boxes a level for each output side: the box head's, the mask head's."""


@dataclass
class Row:
    """One line of the table; ``theirs_ms`` and ``ratio`` are None where not measured."""

    case: str
    ours_ms: float
    theirs_ms: float | None
    ratio: float | None


Case = tuple[str, Callable[[], object], Callable[[], object] | None]


def main() -> None:
    """Measure, print, write ``ops.json`` and ``ops.md``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    allocator = "mallopt" if keep_large_allocations() else "default"
    compiled = has_compiled_mmcv()

    rows = []
    for cases in (*roi_align_cases(compiled), *nms_cases(compiled)):
        rows += [measure(case, options.rounds) for case in cases]
        print(*map(line_of, rows[-len(cases) :]), sep="\n", flush=True)
    rows += totals(rows)
    facts = setting(
        mmcv=compiled_version() if compiled else "not compiled: not measured",
        allocator=allocator,
        rounds=options.rounds,
        image_hw=IMAGE_HW,
        channels=CHANNELS,
    )
    title = "RoIAlign and NMS against compiled mmcv"
    write(options.out, "ops", title, facts, [asdict(row) for row in rows], page(rows))


def roi_align_cases(compiled: bool) -> list[list[Case]]:
    """Return forward, and forward with backward, for each output side and level."""
    return [
        _roi_align_pair(side, stride, count, compiled)
        for side, count in ROIS.items()
        for stride in LEVELS
    ]


def _roi_align_pair(side: int, stride: int, count: int, compiled: bool) -> list[Case]:
    height, width = IMAGE_HW
    features = torch.randn(1, CHANNELS, height // stride, width // stride)
    boxes = random_boxes(count, *LEVELS[stride])
    rois = torch.cat([boxes.new_zeros(count, 1), boxes], dim=1)
    grad = torch.randn(count, CHANNELS, side, side)
    leaf = features.clone().requires_grad_()

    def ours(maps: Tensor) -> Tensor:
        return ops.roi_align(maps, rois, side, 1 / stride, 0, True)

    def theirs(maps: Tensor) -> Tensor:
        from mmcv.ops import roi_align

        pooled: Tensor = roi_align(maps, rois, (side, side), 1 / stride, 0, "avg", True)
        return pooled

    def both_ways(pool: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.autograd.grad(pool(leaf), leaf, grad)[0]

    if compiled:
        torch.testing.assert_close(ours(features), theirs(features), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(both_ways(ours), both_ways(theirs), rtol=1e-3, atol=1e-3)
    name = f"RoIAlign {side}x{side} stride {stride:<2} {count} boxes"
    return [
        (
            f"{name} forward",
            lambda: ours(features),
            (lambda: theirs(features)) if compiled else None,
        ),
        (
            f"{name} both",
            lambda: both_ways(ours),
            (lambda: both_ways(theirs)) if compiled else None,
        ),
    ]


def nms_cases(compiled: bool) -> list[list[Case]]:
    """Return the proposals of five levels, the detections of 80 classes, and one crowded set."""
    proposals = torch.cat([random_boxes(n, 16.0, 500.0) for n in (2000, 2000, 2000, 2000, 741)])
    levels = torch.repeat_interleave(torch.arange(5), torch.tensor([2000, 2000, 2000, 2000, 741]))
    detections = crowded_boxes(4000)
    classes = torch.randint(0, 80, (4000,))
    return [
        [_nms_case("NMS 8,741 proposals of 5 levels, 0.7", proposals, levels, 0.7, compiled)],
        [_nms_case("NMS 4,000 detections of 80 classes, 0.5", detections, classes, 0.5, compiled)],
        [
            _nms_case(
                "NMS 8,000 crowded boxes, one class, 0.5",
                crowded_boxes(8000),
                torch.zeros(8000),
                0.5,
                compiled,
            )
        ],
    ]


def _nms_case(
    name: str, boxes: Tensor, groups: Tensor, iou_threshold: float, compiled: bool
) -> Case:
    # the hosts shift each group out of the others' way and call NMS once
    boxes = boxes + groups.to(boxes)[:, None] * (boxes.max() + 1)
    scores = torch.rand(len(boxes))

    def ours() -> Tensor:
        return ops.nms(boxes, scores, iou_threshold)

    def theirs() -> Tensor:
        from mmcv.ops import nms

        kept: Tensor = nms(boxes, scores, iou_threshold)[1]
        return kept

    if compiled:
        assert torch.equal(ours(), theirs())
    return name, ours, theirs if compiled else None


def random_boxes(count: int, smallest_px: float, largest_px: float) -> Tensor:
    """Return (count, 4) boxes x1, y1, x2, y2 in the image, the logarithm of their sides uniform."""
    height, width = IMAGE_HW
    low, high = torch.tensor([smallest_px, largest_px]).log().tolist()
    side, stretch = (
        torch.empty(count).uniform_(low, high).exp(),
        torch.randn(count).mul(0.35).exp(),
    )
    half = torch.stack([side * stretch, side / stretch], dim=1) / 2
    centre = torch.rand(count, 2) * torch.tensor([width, height])
    limit = torch.tensor([width, height])
    return torch.cat([(centre - half).clamp(min=0), torch.minimum(centre + half, limit)], dim=1)


def crowded_boxes(count: int) -> Tensor:
    """Return (count, 4) boxes in clusters of about 50 around the same objects."""
    objects = random_boxes(max(count // 50, 1), 32.0, 300.0)
    own = objects[torch.randint(0, len(objects), (count,))]
    sides = (own[:, 2:] - own[:, :2]).repeat(1, 2)
    return own + torch.randn(count, 4) * 0.08 * sides


def measure(case: Case, rounds: int) -> Row:
    """Time both sides in turn, after one unmeasured round."""
    name, ours, theirs = case
    seconds = take_turns({"ours": ours} | ({"theirs": theirs} if theirs else {}), rounds)
    median_ms = {side: round(statistics.median(s) * 1e3, 2) for side, s in seconds.items()}
    return Row(
        case=name,
        ours_ms=median_ms["ours"],
        theirs_ms=median_ms.get("theirs"),
        ratio=round(ratio(seconds["theirs"], seconds["ours"]), 2) if theirs else None,
    )


def totals(rows: list[Row]) -> list[Row]:
    """Return the sum over the four levels for each output side and direction."""
    sums = []
    for side in ROIS:
        for direction in ("forward", "both"):
            own = [
                row
                for row in rows
                if row.case.startswith(f"RoIAlign {side}x") and row.case.endswith(direction)
            ]
            ours = sum(row.ours_ms for row in own)
            theirs = [row.theirs_ms for row in own if row.theirs_ms is not None]
            theirs_ms = round(sum(theirs), 2) if theirs else None
            own_ratio = round(theirs_ms / ours, 2) if theirs_ms is not None else None
            sums.append(
                Row(
                    f"RoIAlign {side}x{side} all four levels {direction}",
                    round(ours, 2),
                    theirs_ms,
                    own_ratio,
                )
            )
    return sums


def line_of(row: Row) -> str:
    """Return the row for a terminal."""
    theirs = "" if row.theirs_ms is None else f"   mmcv {row.theirs_ms:9.2f} ms   x{row.ratio:.2f}"
    return f"{row.case:48} ours {row.ours_ms:9.2f} ms{theirs}"


def page(rows: list[Row]) -> list[str]:
    """Return the table."""
    body = []
    for row in rows:
        theirs = "not measured" if row.theirs_ms is None else f"{row.theirs_ms:.1f}"
        own_ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        body.append([row.case, f"{row.ours_ms:.1f}", theirs, own_ratio])
    legend = "Medians in milliseconds; ratio is theirs / ours, pair by pair."
    return [legend, "", *table(["case", "ours", "compiled mmcv", "ratio"], body)]


def has_compiled_mmcv() -> bool:
    """Whether ``mmcv._ext`` is a compiled module, not the portable one."""
    import mmcv._ext

    return str(mmcv._ext.__file__).endswith(tuple(EXTENSION_SUFFIXES))


def compiled_version() -> str:
    """Return mmcv's version and its compiler."""
    import mmcv
    from mmcv.ops import get_compiler_version

    return f"{mmcv.__version__} ({get_compiler_version()})"


if __name__ == "__main__":
    main()
