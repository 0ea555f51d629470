"""Time and peak memory of a Swin-T training step against pixels and batch, also with with_cp.

    python -m benchmarks.bench_growth [--threads 2]

Each point runs in a process of its own, so that its peak memory is its own: the largest resident
size less that before the model was built. Writes a plot beside the table.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import RESULTS, setting, table, write
from swin_dense.engine.runtime import keep_large_allocations
from swin_dense.ops import fused

SIDES = (256, 512, 768, 1024, 1536, 2048)
BATCHES = (1, 2, 4, 8)
BATCH_SIDE = 384
NAMES = {"ours": "swin_dense", "ours_cp": "swin_dense, with_cp", "mmdet": "mmdet"}


def main() -> None:
    """Measure every point, write ``growth.json``, ``growth.md`` and ``growth.png``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--point", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        print(json.dumps(measure(json.loads(options.point))))
        return
    facts = setting(dtype="float32", mode="training step", arch="tiny", threads=options.threads)
    points = [(1, side) for side in options.sides]
    points += [(batch, BATCH_SIDE) for batch in options.batches]
    rows = []
    for batch, side in points:
        for name in NAMES:
            point = dict(name=name, batch=batch, side=side, threads=options.threads)
            rows.append({**point, **_in_own_process(point)})
            print(
                f"{batch} x {side}x{side} {NAMES[name]:20} "
                f"{rows[-1]['seconds']:7.2f} s {rows[-1]['peak_mib']:7.0f} MiB",
                flush=True,
            )
    write(
        options.out, "growth", "Time and memory against pixels and batch", facts, rows, page(rows)
    )
    plot(rows, options.out / "growth.png")


def _in_own_process(point: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.bench_growth", "--point", json.dumps(point)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def measure(point: dict[str, Any]) -> dict[str, float]:
    """Return the seconds of the better of two steps after the first, and the peak memory."""
    torch.set_num_threads(point["threads"])
    keep_large_allocations()
    if point["name"] == "mmdet":
        from mmdet.models.backbones import SwinTransformer
    else:
        from swin_dense import SwinTransformer

        fused.send_products_to_onednn()
    options = dict(drop_path_rate=0.0, with_cp=point["name"] == "ours_cp")
    before = _peak_mib()
    model = SwinTransformer(**options)
    model.train()
    images = torch.randn(point["batch"], 3, point["side"], point["side"])
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        for parameter in model.parameters():
            parameter.grad = None
        sum(level.mean() for level in model(images)).backward()
        seconds.append(time.perf_counter() - start)
    return {"seconds": round(min(seconds[1:]), 3), "peak_mib": round(_peak_mib() - before)}


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def page(rows: list[dict[str, Any]]) -> list[str]:
    """Return the table: a line a point, seconds and memory a contender."""
    points = list(dict.fromkeys((row["batch"], row["side"]) for row in rows))
    found = {(row["batch"], row["side"], row["name"]): row for row in rows}
    header = ["images", "megapixels"]
    header += [f"{label}, {unit}" for label in NAMES.values() for unit in ("s", "MiB")]
    body = []
    for batch, side in points:
        cells = [f"{batch} x {side}x{side}", f"{batch * side**2 / 1e6:.2f}"]
        for name in NAMES:
            row = found[batch, side, name]
            cells += [f"{row['seconds']:.2f}", f"{row['peak_mib']:.0f}"]
        body.append(cells)
    return [*table(header, body), "", "![time and memory](growth.png)"]


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw time and memory against megapixels, one image of growing size as a line, batches as
    dots."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, key, label in zip(
        axes, ("seconds", "peak_mib"), ("seconds a step", "peak memory, MiB"), strict=True
    ):
        for colour, (name, title) in enumerate(NAMES.items()):
            for single, style in ((True, "o-"), (False, "x")):
                own = [
                    (row["batch"] * row["side"] ** 2 / 1e6, row[key])
                    for row in rows
                    if row["name"] == name and (row["side"] != BATCH_SIDE) == single
                ]
                if own:
                    axis.plot(
                        *zip(*own, strict=True),
                        style,
                        color=f"C{colour}",
                        markersize=5,
                        label=title if single else f"{title}, batches",
                    )
        axis.set_xlabel("megapixels in the batch")
        axis.set_ylabel(label)
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
