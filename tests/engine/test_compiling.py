"""``compile_backbone``: one graph for all sizes, the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import swin_dense
from swin_dense.engine import compiling
from swin_dense.errors import UserError


class _Detector(nn.Module):
    """The parts that are compiled, as a detector holds them."""

    def __init__(self) -> None:
        super().__init__()
        from mmdet.models.necks import FPN

        self.backbone = swin_dense.SwinTransformer(
            embed_dims=8, depths=(2, 2), num_heads=(1, 2), window_size=4, drop_path_rate=0.0
        )
        self.neck = FPN(in_channels=[8, 16], out_channels=8, num_outs=3)

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.neck(self.backbone(images)))


@pytest.mark.slow
def test_backbone_and_neck_compile_whole_and_not_anew_for_each_size() -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    eager, compiled = _Detector(), _Detector()
    compiled.load_state_dict(eager.state_dict())
    counter = CompileCounterWithBackend("aot_eager")
    cfg = Config(dict(compile_backbone=dict(backend=counter, fullgraph=True)))
    notes = compiling.compile_parts(compiled, cfg)
    assert "backbone and neck" in notes[0]
    graphs = []
    for batch, height, width in ((2, 45, 70), (2, 64, 64), (3, 33, 51), (2, 96, 35)):
        images = torch.randn(batch, 3, height, width)
        found = []
        for model in (eager, compiled):
            model.zero_grad()
            maps = model(images)
            sum((level**2).sum() for level in maps).backward()
            grads = {name: p.grad for name, p in model.named_parameters()}
            found.append([*maps, *grads.values()])
        for expected, got in zip(*found, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
        graphs.append(counter.frame_count)
    # the backbone's graph and the neck's; torch traces a frame again where it finds that a number,
    # here the scale of attention, may as well be a constant
    assert graphs[0] in (2, 3)
    assert graphs[1] == graphs[-1] <= 4


def test_a_config_without_the_key_compiles_nothing() -> None:
    assert compiling.compile_parts(nn.Module(), Config({})) == []
    assert compiling.compile_parts(nn.Module(), Config(dict(compile_backbone=False))) == []


def test_a_key_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(UserError, match="expected True, False or a dict"):
        compiling.compile_parts(nn.Module(), Config(dict(compile_backbone="yes")))


def test_a_missing_compiler_is_said_before_the_first_iteration(monkeypatch: Any) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"no no-such-compiler .* Install g"):
        compiling.compile_parts(nn.Module(), Config(dict(compile_backbone=True)))
