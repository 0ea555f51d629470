"""Time Swin as this project, mmdet, timm and transformers have it, on the CPU, with equal weights.

    python -m benchmarks.bench_backbone [--rounds 5] [--threads 2] [--official CHECKOUT]

One process, one allocator (large blocks kept); contenders take turns, and their maps must agree
before anything is timed. A training step is forward and backward in training mode with the recipe's
stochastic depth, the same seed for each; inference is a forward pass without gradients. A ratio is
the median of theirs / ours over the rounds: above 1, ours is faster. Rows marked * let the peer's
float32 products run in oneDNN too, as our tools do for a whole run.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.backbones import contenders
from benchmarks.common import RESULTS, ratio, setting, table, take_turns, versions, write
from swin_dense.engine.runtime import keep_large_allocations
from swin_dense.ops import fused

SIZES = ((512, 512), (800, 1216))
TOLERANCE = 1e-4
PARTS = {
    "linear layers": ("mkldnn::_linear_pointwise", "aten::mm", "aten::addmm"),
    "products inside windows": ("aten::bmm",),
    "moves into and out of windows": ("aten::index_select", "aten::index_copy_"),
    "norms": ("aten::native_layer_norm", "aten::native_layer_norm_backward"),
    "GELU": ("aten::gelu", "aten::gelu_backward"),
    "softmax": ("aten::exp2_", "aten::sub_"),
    "casts and copies": ("aten::copy_",),
    "sums": ("aten::sum",),
    "sums and products of tensors": ("aten::add", "aten::add_", "aten::mul", "aten::mul_"),
}
"""Operations of torch by what they are for; GELU in inference is inside the linear layers."""


def main() -> None:
    """Measure, print, write ``backbone.json`` and ``backbone.md``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--arch", default="tiny", choices=("tiny", "base"))
    parser.add_argument("--official", type=Path, help="checkout of the official detection code")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    facts = setting(
        allocator="mallopt" if keep_large_allocations() else "default",
        rounds=options.rounds,
        arch=options.arch,
        batch=1,
        drop_path_rate=0.2,
        peers=versions("mmdet", "timm", "transformers"),
    )
    rows, parts = [], []
    for image_hw in SIZES:
        models = contenders(options.arch, image_hw, drop_path_rate=0.2, official=options.official)
        agree = agreeing(models, torch.randn(1, 3, *image_hw))
        for dtype in (torch.float32, torch.bfloat16):
            for mode in ("train", "inference"):
                case = Case(models, image_hw, dtype, mode)
                rows += case.measure(options.rounds, agree)
                print(*(line_of(row) for row in rows[-len(models) - 1 :]), sep="\n", flush=True)
                parts.append(case.parts())
    write(options.out, "backbone", "Swin backbones on the CPU", facts, rows, page(rows, parts))


def agreeing(models: dict[str, nn.Module], images: Tensor) -> dict[str, float]:
    """Return how far each contender's maps are from ours, in shares of the largest value.

    Raises:
        RuntimeError: all but timm, which rolls a grid before it pads it, must agree.
    """
    for model in models.values():
        model.eval()
    with torch.no_grad():
        maps = {name: model(images) for name, model in models.items()}
    found = {}
    for name, theirs in maps.items():
        pairs = zip(theirs, maps["swin_dense"], strict=True)
        found[name] = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
        if found[name] > TOLERANCE and name != "timm":
            raise RuntimeError(f"{name}'s maps differ from ours by {found[name]:.1e}")
    return found


class Case:
    """One size, dtype and mode for all contenders."""

    def __init__(
        self,
        models: dict[str, nn.Module],
        image_hw: tuple[int, int],
        dtype: torch.dtype,
        mode: str,
    ) -> None:
        self.models, self.dtype, self.mode, self.image_hw = models, dtype, mode, image_hw
        self.images = torch.randn(1, 3, *image_hw)
        with torch.no_grad():
            maps = models["swin_dense"].eval()(self.images)
        self.grads = [torch.randn_like(level) / level.numel() for level in maps]
        for model in models.values():
            model.train(mode == "train")
        self.seed = 0

    def run(self, model: nn.Module) -> None:
        """Run one step, or one forward pass."""
        torch.manual_seed(self.seed)
        for parameter in model.parameters():
            parameter.grad = None
        with (
            torch.set_grad_enabled(self.mode == "train"),
            torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == torch.bfloat16),
        ):
            maps = model(self.images)
        if self.mode == "train":
            grads = [grad.to(level.dtype) for grad, level in zip(self.grads, maps, strict=True)]
            torch.autograd.backward(list(maps), grads)

    def measure(self, rounds: int, agree: dict[str, float]) -> list[dict[str, Any]]:
        """Time all contenders in turn; mmdet also with our routing of products."""

        def turn(name: str, *, routed: bool) -> Callable[[], None]:
            def run() -> None:
                if not (routed and fused.send_products_to_onednn()):
                    torch.set_float32_matmul_precision("highest")
                self.seed += name == "swin_dense"  # first in each round
                self.run(self.models[name])

            return run

        turns = {name: turn(name, routed=name == "swin_dense") for name in self.models}
        turns["mmdet*"] = turn("mmdet", routed=True)
        seconds = take_turns(turns, rounds)
        torch.set_float32_matmul_precision("highest")
        return [
            {
                "size": "x".join(map(str, self.image_hw)),
                "dtype": str(self.dtype).removeprefix("torch."),
                "mode": self.mode,
                "contender": name,
                "seconds": round(statistics.median(taken), 4),
                "ratio": round(ratio(taken, seconds["swin_dense"]), 2),
                "difference": float(f"{agree[name.rstrip('*')]:.1e}"),
            }
            for name, taken in seconds.items()
        ]

    def parts(self) -> dict[str, Any]:
        """Return where our time goes, and the least that its matrix products could take."""
        fused.send_products_to_onednn()
        model = self.models["swin_dense"]
        self.run(model)
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            self.run(model)
        torch.set_float32_matmul_precision("highest")
        spent = {event.key: event.self_cpu_time_total / 1e3 for event in seen.key_averages()}
        found = {part: sum(spent.get(op, 0.0) for op in ops) for part, ops in PARTS.items()}
        found["the rest"] = sum(spent.values()) - sum(found.values())
        return {
            "case": f"{'x'.join(map(str, self.image_hw))} {self.dtype} {self.mode}",
            "parts_ms": {part: round(ms, 1) for part, ms in found.items()},
            "total_ms": round(sum(spent.values()), 1),
        }


def line_of(row: dict[str, Any]) -> str:
    """Return a row for a terminal."""
    case = f"{row['size']:9} {row['dtype']:9} {row['mode']:9} {row['contender']:14}"
    return f"{case} {row['seconds']:7.3f} s   x{row['ratio']:.2f}"


def page(rows: list[dict[str, Any]], parts: list[dict[str, Any]]) -> list[str]:
    """Return the tables: times and ratios, then the parts of ours."""
    cases = list(dict.fromkeys((row["size"], row["dtype"], row["mode"]) for row in rows))
    names = list(dict.fromkeys(row["contender"] for row in rows))
    found = {(row["size"], row["dtype"], row["mode"], row["contender"]): row for row in rows}
    lines = ["Median seconds, and in brackets the ratio theirs / ours, pair by pair.", ""]
    body = []
    for case in cases:
        cells = [" ".join(case)]
        for name in names:
            row = found[(*case, name)]
            cells.append(
                f"{row['seconds']:.3f}" + ("" if name == "swin_dense" else f" ({row['ratio']:.2f})")
            )
        body.append(cells)
    lines += table(["case", *names], body)
    lines += ["", "Where ours goes, milliseconds of processor time in one profiled run:", ""]
    keys = list(parts[0]["parts_ms"])
    lines += table(
        ["part", *(part["case"].replace("torch.", "") for part in parts)],
        [[key, *(f"{part['parts_ms'][key]:.0f}" for part in parts)] for key in keys]
        + [["all", *(f"{part['total_ms']:.0f}" for part in parts)]],
    )
    return lines


if __name__ == "__main__":
    main()
