"""Cost of every registered backbone in every published size: parameters, MACs, time, memory.

    python benchmarks/backbone_table.py [--kinds PVT PVTv2] [--rounds 2] [--threads 1]

Parameters and multiply-accumulates are counted at 800x1280 pixels without running anything. Time
and memory are measured at 512x512, each size in a process of its own: the best forward pass of
several in evaluation mode, and the most memory that a forward and backward pass in training mode
needs above what the process had before the model was built. Time is that of the processor, which
other programs disturb less than the clock on the wall; with one thread the two are equal on a quiet
machine. Writes ``results/backbones.json`` and
the table in ``docs/backbones.md``; sizes that are not measured this time keep their figures.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from bench_ops import processor
from torch import nn

import swin_dense.backbones  # noqa: F401  registers them
from swin_dense.backbones.base import Backbone
from swin_dense.evaluation.complexity import count_model
from swin_dense.registry import MODELS

COUNTED_HW, MEASURED_HW = (800, 1280), (512, 512)
RESULTS = Path(__file__).parent / "results" / "backbones.json"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "backbones.md"
BEGIN, END = "<!-- table of cost: begin -->\n", "<!-- table of cost: end -->\n"


class Whole(nn.Module):
    """A model that is a backbone alone."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone


def variants() -> dict[str, tuple[str, str]]:
    """Return (class, arch) of every published size by "class arch"; of two names of one the first.

    Names are of one size where they stand for the very same options.
    """
    found = {}
    for name, kind in sorted(MODELS.module_dict.items()):
        if not (isinstance(kind, type) and issubclass(kind, Backbone)):
            continue
        seen: set[int] = set()
        for arch, options in kind.architectures.items():
            if id(options) not in seen:
                found[f"{name} {arch}"] = (name, arch)
            seen.add(id(options))
    return found


def count(name: str, arch: str) -> dict[str, float]:
    """Return parameters and MACs, each in units that the table shows."""
    with torch.device("meta"):
        model = Whole(MODELS.get(name)(arch)).eval()
    cost = count_model(model, COUNTED_HW)[0]
    return {
        "parameters_m": round(cost.parameters / 1e6, 2),
        "gmacs": round(cost.macs / 1e9, 1),
    }


def measure(name: str, arch: str, rounds: int, threads: int) -> dict[str, float]:
    """Time a forward pass, and take the peak of a training step; call it in a fresh process."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = MODELS.get(name)(arch).eval()
    images = torch.randn(1, 3, *MEASURED_HW)
    seconds = []
    with torch.inference_mode():
        for _ in range(rounds):
            start = time.process_time()
            model(images)
            seconds.append(time.process_time() - start)
    torch.stack([feature.mean() for feature in model.train()(images)]).sum().backward()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
    return {"forward_s": round(min(seconds), 2), "training_mib": round((peak - before) / 1024)}


def table(results: dict[str, Any]) -> str:
    """Return the table in Markdown, with what it was measured on."""
    lines = [
        '| `type="swin_dense...."` | `arch` | parameters | MACs | forward, processor time '
        "| training memory |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for key, (name, arch) in variants().items():
        cost = results["costs"].get(key, {})
        seconds, mib = cost.get("forward_s"), cost.get("training_mib")
        lines.append(
            f"| {name} | {arch} | {cost['parameters_m']:.2f}M | {cost['gmacs']:.1f}G | "
            f"{'-' if seconds is None else f'{seconds:.2f} s'} | "
            f"{'-' if mib is None else f'{mib} MiB'} |"
        )
    about = results["about"]
    lines += [
        "",
        f"Measured on {about['machine']}, {about['threads']} thread, torch {about['torch']}, fp32, "
        f"{about['date']}, load average {about['load_average']}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Count and measure, write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="*", help="classes to measure; all where it is left out")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    old = json.loads(RESULTS.read_text())["costs"] if RESULTS.is_file() else {}
    costs: dict[str, dict[str, float]] = {}
    for key, (name, arch) in variants().items():
        costs[key] = {**old.get(key, {}), **count(name, arch)}
        if options.kinds is None or name in options.kinds:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                arguments = (name, arch, options.rounds, options.threads)
                costs[key] |= pool.apply(measure, arguments)
        print(key, costs[key], flush=True)
    about = {
        "machine": processor(),
        "threads": options.threads,
        "torch": torch.__version__,
        "date": str(date.today()),
        "load_average": round(os.getloadavg()[0], 1),
        "rounds": options.rounds,
        "counted_hw": COUNTED_HW,
        "measured_hw": MEASURED_HW,
    }
    results = {"about": about, "costs": costs}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(before + BEGIN + table(results) + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
