"""Whether Swin V2's position biases mean the same offsets in a checkpoint and in the model.

The bias network sees offsets divided by the window it was trained with. Where the model divides by
another one, every tensor fits and every bias is wrong, which only this tells.

Letters: M window side.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_TABLE = re.compile(r"^layers\.(\d+)\.blocks\.0\.attn\.relative_coords_table$")


def trained_windows(tables: Mapping[str, Tensor]) -> dict[int, int]:
    """Return for each stage the window that offsets are divided by.

    Args:
        tables: tensors by official name; of these the (1, 2M-1, 2M-1, 2) ``relative_coords_table``
            of each stage's first block counts.
    """
    windows = {}
    for name, table in tables.items():
        if (found := _TABLE.match(name)) and table.numel() > 2 and not table.is_meta:
            largest_offset = table.shape[1] // 2
            scaled = 2 ** (3 * float(table.max())) - 1  # undoes log2(x + 1) / log2(8)
            windows[int(found[1])] = round(8 * largest_offset / scaled) + 1
    return windows


def window_notes(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> list[str]:
    """Return what to set where a checkpoint's and the model's windows differ, else nothing."""
    trained, scaled = trained_windows(theirs), trained_windows(ours)
    wanted = tuple(trained.get(stage, scaled[stage]) for stage in sorted(scaled))
    given = tuple(scaled[stage] for stage in sorted(scaled))
    if wanted == given:
        return []
    return [
        f"WARNING: position biases were trained with windows of {wanted}, the model scales them by "
        f"{given}: set pretrained_window_sizes={wanted}"
    ]
