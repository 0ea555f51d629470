"""Counts that the published figures are compared with, beside those of the package."""

from __future__ import annotations

from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from swin_dense.engine.config import load_config
from swin_dense.engine.counting import build_on_meta, published_hw


@cache
def attention_macs_of(config: str) -> int:
    """Return the multiply-accumulates of a backbone's products of two activations.

    In a transformer these are queries times keys and weights times values, nothing else.
    """
    cfg = load_config(config)
    backbone, counter = build_on_meta(cfg).backbone, FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        backbone(torch.empty(1, 3, *published_hw(cfg), device="meta"))
    return int(counter.get_flop_counts()["Global"].get(torch.ops.aten.bmm, 0)) // 2
