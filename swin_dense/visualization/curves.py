"""Curves of a run: read mmengine's ``scalars.json`` and plot losses, rates and metrics.

Letters: P points of a curve.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swin_dense.errors import UserError
from swin_dense.visualization.palette import class_color

_NOT_CURVES = frozenset({"step", "iter", "epoch"})
_LOSS = re.compile(r"(^|[_./])(loss|d\d+\.loss)")
_RATE = re.compile(r"(^|/)(base_)?lr$|momentum$")
_ACCURACY = re.compile(r"(^|[._/])acc(_seg)?$")
_COST = re.compile(r"(^|_)(time|memory|eta)$|^data_time$")
_VALIDATION = "val/"
_TOTALS = ("loss", _VALIDATION + "loss")
_MAX_LINES = 8
_SMOOTH_FROM = 60


@dataclass(frozen=True, eq=False)
class Curve:
    """One scalar over a run.

    Attributes:
        steps: (P,) training iterations.
        values: (P,); a run that broke has NaN or infinity in it.
    """

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


def find_scalars(path: str | Path) -> Path:
    """Return the ``scalars.json`` at a path: the file, or the newest one below a run's folder.

    Raises:
        UserError: there is none.
    """
    path = Path(os.path.expanduser(path))
    if path.is_file():
        return path
    found = sorted(path.rglob("scalars.json"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise UserError(
            f"no scalars.json at {path}; expected the file itself, or the work dir of a run, which "
            "has it in <timestamp>/vis_data/."
        )
    return found[-1]


def read_scalars(path: str | Path) -> dict[str, Curve]:
    """Return the curves of a run by name, such as ``loss``, ``lr``, ``coco/bbox_mAP``, ``mIoU``.

    Validation lines count epochs where the run does; their curves are put at the training iteration
    that was logged last before them, so that all curves share one axis. A last line that a killed
    run left incomplete is passed over.

    Args:
        path: as :func:`find_scalars` takes it.

    Raises:
        UserError: no such file, or a line that is no JSON object.
    """
    file = find_scalars(path)
    points: dict[str, list[tuple[float, float]]] = {}
    last_step = 0.0
    for entry in _entries(file):
        step = float(entry.get("iter") or entry.get("step") or last_step)
        if _trains(entry):
            last_step = step
        elif last_step:
            step = last_step
        for name, value in entry.items():
            if name not in _NOT_CURVES and isinstance(value, int | float):
                points.setdefault(name, []).append((step, float(value)))
    return {
        name: Curve(*(np.array(column, np.float64) for column in zip(*pairs, strict=True)))
        for name, pairs in points.items()
    }


def plot_curves(
    series: Mapping[str, Curve],
    path: str | Path,
    *,
    title: str | None = None,
    dpi: int = 120,
) -> Path:
    """Plot curves, a panel each for losses, metrics and learning rate; return the picture's path.

    Total losses are drawn strongest; long noisy losses get a running mean over the pale original;
    where a value is not finite the panel has a red mark on its lower edge. Time and memory are left
    out.

    Args:
        series: as :func:`read_scalars` returns it; a part of it plots that part.
        path: the picture, ``.png``, ``.svg`` or ``.pdf``.
        title: above all panels.
        dpi: dots per inch of a PNG; a panel is 6.4 by 3.6 inches.

    Raises:
        UserError: nothing to plot, or the folder cannot be written.
    """
    kinds = ("loss", "metrics", "accuracy", "learning rate")
    groups: dict[str, dict[str, Curve]] = {kind: {} for kind in kinds}
    for name, curve in series.items():
        if not _COST.search(name):
            groups[_kind_of(name)][name] = curve
    panels = {kind: curves for kind, curves in groups.items() if curves}
    if not panels:
        raise UserError(f"nothing to plot in {list(series)}; expected losses, metrics or rates.")

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(panels), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (kind, curves) in zip(axes, panels.items(), strict=True):
        _draw_panel(axis, kind, curves)
    if title:
        figure.suptitle(title)
    return _save(figure, Path(os.path.expanduser(path)), dpi)


@dataclass(frozen=True)
class IterationTimes:
    """How long iterations took, from the values that a run logged.

    Attributes:
        mean: seconds.
        median: seconds.
        slowest: seconds.
        slowest_at: the iteration that logged it.
        count: how many values there are; each may stand for several iterations.
        epochs: mean seconds by epoch, where the run counts epochs.
    """

    mean: float
    median: float
    slowest: float
    slowest_at: int
    count: int
    epochs: Mapping[int, float]


def iteration_times(path: str | Path, *, drop_first: bool = True) -> IterationTimes:
    """Return the time of a run's training iterations.

    Args:
        path: as :func:`find_scalars` takes it.
        drop_first: leave out each epoch's first value (the run's first, where it counts no
            epochs), which warming up makes slow.

    Raises:
        UserError: no such file, or no training iteration in it logged its time.
    """
    file = find_scalars(path)
    found: dict[int, list[tuple[int, float]]] = {}
    for entry in _entries(file):
        if _trains(entry) and "time" in entry:
            step = int(entry.get("iter") or entry.get("step") or 0)
            found.setdefault(int(entry.get("epoch", 0)), []).append((step, float(entry["time"])))
    if not found:
        raise UserError(f"{file} has no time of a training iteration; expected a training's log.")
    kept = {
        epoch: values[1:] if drop_first and len(values) > 1 else values
        for epoch, values in found.items()
    }
    every = [value for values in kept.values() for value in values]
    seconds = np.array([value for _, value in every])
    return IterationTimes(
        mean=float(seconds.mean()),
        median=float(np.median(seconds)),
        slowest=float(seconds.max()),
        slowest_at=every[int(seconds.argmax())][0],
        count=len(every),
        epochs={
            epoch: float(np.mean([value for _, value in values]))
            for epoch, values in kept.items()
            if epoch
        },
    )


def plot_together(
    curves: Mapping[str, Curve],
    path: str | Path,
    *,
    title: str | None = None,
    dpi: int = 110,
) -> Path:
    """Plot curves in one panel, of one run or of several; return the picture's path.

    Args:
        curves: by the name to show.
        path: the picture, ``.png``, ``.svg`` or ``.pdf``.
        title: above the panel.
        dpi: dots per inch of a PNG; the panel is 8 by 4.8 inches.

    Raises:
        UserError: the folder cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for index, (name, curve) in enumerate(curves.items()):
        color = tuple(0.85 * channel / 255 for channel in class_color(index))
        marker = "o" if len(curve.steps) <= 30 else None
        axis.plot(curve.steps, curve.values, color=color, marker=marker, markersize=3, label=name)
    axis.set_xlabel("iteration")
    axis.grid(True, color="0.9")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, framealpha=0.85)
    if title:
        axis.set_title(title)
    return _save(figure, Path(os.path.expanduser(path)), dpi)


def running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Return the mean of the last ``window`` finite values at each point, (P,) to (P,)."""
    finite = np.isfinite(values)
    sums = np.cumsum(np.where(finite, values, 0.0))
    counts = np.cumsum(finite).astype(np.float64)
    sums[window:] = sums[window:] - sums[:-window].copy()
    counts[window:] = counts[window:] - counts[:-window].copy()
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _entries(file: Path) -> list[dict[str, Any]]:
    lines = file.read_text(encoding="utf-8").splitlines()
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict):
                raise ValueError(f"a {type(entry).__name__}")
        except ValueError as error:
            if number == len(lines):
                break
            raise UserError(
                f"{file}, line {number}: got {line[:60]!r} ({error}); expected one JSON object a "
                "line, as mmengine's LocalVisBackend writes it."
            ) from error
        entries.append(entry)
    return entries


def _trains(entry: Mapping[str, Any]) -> bool:
    """Whether a line of the log tells of training iterations, not of a validation."""
    return any(
        _LOSS.search(name) or _RATE.search(name)
        for name in entry
        if not name.startswith(_VALIDATION)
    )


def _kind_of(name: str) -> str:
    if _LOSS.search(name):
        return "loss"
    if _RATE.search(name):
        return "learning rate"
    return "accuracy" if _ACCURACY.search(name) else "metrics"


def _draw_panel(axis: Any, kind: str, curves: Mapping[str, Curve]) -> None:
    total_first = sorted(
        curves,
        key=lambda name: (name not in _TOTALS, name.startswith(_VALIDATION), len(name), name),
    )
    for index, name in enumerate(total_first[:_MAX_LINES]):
        curve = curves[name]
        color = tuple(0.85 * channel / 255 for channel in class_color(index))
        width = 2.0 if index == 0 or name in _TOTALS or kind == "metrics" else 1.2
        marker = "o" if len(curve.steps) <= 30 else None
        values = curve.values
        if kind == "loss" and len(values) >= _SMOOTH_FROM:
            axis.plot(curve.steps, values, color=color, linewidth=0.7, alpha=0.3)
            values = running_mean(values, len(values) // 20)
        axis.plot(
            curve.steps,
            values,
            color=color,
            linewidth=width,
            marker=marker,
            markersize=3,
            label=name,
        )
        broken = curve.steps[~np.isfinite(curve.values)]
        for step in broken[:1]:
            axis.plot(
                [step], [0], "rv", transform=axis.get_xaxis_transform(), clip_on=False, zorder=5
            )
            axis.annotate(
                f"{name} not finite from {step:g}",
                (step, 0.03),
                xycoords=axis.get_xaxis_transform(),
                ha="right" if step > curve.steps.mean() else "left",
                color="red",
                fontsize=8,
            )
    left_out = len(curves) - _MAX_LINES
    axis.set_title(kind + (f" (first {_MAX_LINES} of {len(curves)})" if left_out > 0 else ""))
    axis.set_xlabel("iteration")
    axis.grid(True, color="0.9")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, framealpha=0.85)


def _save(figure: Any, path: Path, dpi: int) -> Path:
    partial = path.with_name(path.stem + ".part" + path.suffix)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(partial, dpi=dpi)
        partial.replace(path)
    except (OSError, ValueError) as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error}. Use .png, .svg or .pdf.") from error
    return path
