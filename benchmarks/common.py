"""What the benchmarks share: taking turns, ratios pair by pair, saying where it was measured."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def take_turns(
    contenders: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: int = 1
) -> dict[str, list[float]]:
    """Return the seconds of each contender in each round; in a round each has one turn."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(-warm_up, rounds):
        for name, function in contenders.items():
            start = time.perf_counter()
            function()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(theirs: list[float], ours: list[float]) -> float:
    """Return the median of theirs / ours over the rounds: above 1, ours is faster."""
    return statistics.median(t / o for t, o in zip(theirs, ours, strict=True))


def setting(**more: Any) -> dict[str, Any]:
    """Return the date, the machine, the versions, and what the benchmark adds."""
    return {
        "date": date.today().isoformat(),
        "machine": processor(),
        "cores": os.cpu_count(),
        "load_average_before": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **more,
    }


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of ``packages``, "not installed" where absent."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def processor() -> str:
    """Return the processor's name, as Linux tells it, else what Python knows."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a Markdown table, its columns but the first aligned right."""
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def write(
    folder: Path, name: str, title: str, facts: dict[str, Any], rows: Any, page: list[str]
) -> None:
    """Write ``name.json`` with everything and ``name.md`` for reading."""
    folder.mkdir(parents=True, exist_ok=True)
    result = {"setting": facts, "rows": rows}
    (folder / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    lines = [f"# {title}", "", *(f"- {key}: {value}" for key, value in facts.items()), "", *page]
    (folder / f"{name}.md").write_text("\n".join(lines) + "\n")
    print(f"wrote {folder / f'{name}.md'}")
