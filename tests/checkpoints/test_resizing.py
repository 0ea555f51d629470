"""Tensors of another window, image size or number of input channels are fitted to the model."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from swin_dense import load_pretrained
from swin_dense.checkpoints.resize import resize_bias_table, resize_input_channels
from tests.checkpoints.peers import official_state, v1


def test_a_position_embedding_is_reshaped_and_resized(parity: ModuleType) -> None:
    official = official_state(v1(use_abs_pos_embed=True, pretrain_img_size=64), parity)
    grid = official["absolute_pos_embed"]
    official["absolute_pos_embed"] = grid.flatten(2).transpose(1, 2)  # (1, C, H, W) -> (1, L, C)
    same = v1(use_abs_pos_embed=True, pretrain_img_size=64)
    assert load_pretrained(same, official).resized == []
    assert torch.equal(same.absolute_pos_embed, grid)
    larger = v1(use_abs_pos_embed=True, pretrain_img_size=96)
    assert load_pretrained(larger, official).resized == ["absolute_pos_embed"]
    expected = torch.nn.functional.interpolate(grid, size=(24, 24), mode="bicubic")
    torch.testing.assert_close(larger.absolute_pos_embed.detach(), expected)


def test_a_bias_table_is_resized_as_the_official_code_does(shared: Path) -> None:
    with np.load(shared / "parity" / "rel_table_13to23.npz") as record:
        tables = {name: torch.from_numpy(record[name]) for name in record.files}
    small = next(table for table in tables.values() if table.shape[0] == 13 * 13)
    large = [table for table in tables.values() if table.shape[0] == 23 * 23]
    resized = resize_bias_table(small, 23 * 23)
    assert min((resized - table).abs().max().item() for table in large) < 1e-5


def test_another_window_resizes_each_table_by_its_own_size(parity: ModuleType) -> None:
    official = official_state(v1(), parity)
    smaller = official_state(v1(window_size=3), parity)
    for key in official:
        if key.startswith("layers.3.") and key.endswith("bias_table"):
            official[key] = smaller[key]
    report = load_pretrained(v1(window_size=7), official)
    assert len(report.resized) == 8
    assert report.missing_suspicious == []


def test_one_or_six_equal_channels_give_what_three_gave(parity: ModuleType) -> None:
    official = official_state(v1(), parity)
    three = v1()
    load_pretrained(three, official)
    picture = torch.randn(1, 1, 64, 64)
    for channels in (1, 6):
        ours = v1(in_channels=channels)
        assert load_pretrained(ours, official).resized == ["patch_embed.proj.weight"]
        with torch.no_grad():
            got = ours.patch_embed.proj(picture.expand(1, channels, -1, -1))
            expected = three.patch_embed.proj(picture.expand(1, 3, -1, -1))
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_a_fourth_channel_starts_as_the_first_and_all_are_scaled() -> None:
    weight = torch.arange(3.0).view(1, 3, 1, 1) + 1
    assert resize_input_channels(weight, 4).flatten().tolist() == [0.75, 1.5, 2.25, 0.75]
