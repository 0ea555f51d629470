"""Put the tables of ``results/`` into ``docs/performance.md``: ``python -m benchmarks.page``.

Each ``<!-- NAME -->`` ... ``<!-- /NAME -->`` of the page gets the first table of ``NAME.md``, with
the machine and date it is from; a name with a word after it, ``<!-- ops four levels -->``, gets the
rows that have the word alone.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.common import RESULTS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
SLOT = re.compile(r"(<!-- (\w+)(?: ([\w, |-]+))? -->\n).*?(<!-- /\2 -->)", re.S)
FACT = re.compile(r"^- (date|machine|threads|torch): (.+)$", re.M)


def filled(text: str) -> str:
    """Return the page with every slot as the results are now."""
    return SLOT.sub(lambda slot: slot[1] + _table(slot[2], slot[3]) + slot[4], text)


def _table(name: str, word: str | None) -> str:
    report = (RESULTS / f"{name}.md").read_text()
    facts = dict(FACT.findall(report))
    lines = report.splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append(line)
    if word is not None:
        wanted = word.split(" | ")
        rows = rows[:2] + [row for row in rows[2:] if any(part in row for part in wanted)]
    source = ", ".join(
        f"{facts[key]} threads" if key == "threads" else facts[key]
        for key in ("machine", "threads", "torch", "date")
        if key in facts
    )
    note = f"\n{source}; [all of it](../benchmarks/results/{name}.md).\n" if source else "\n"
    return "\n".join(rows) + "\n" + note


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
