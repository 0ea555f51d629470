"""A host's own Swin config, and the same with only ``type`` changed, train to the same losses."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from swin_dense.engine.session import build_runner
from swin_dense.ops import convolution, fused
from tests import runs

OURS = "swin_dense.SwinTransformer"


def losses_of(
    config: str, options: dict[str, object], work_dir: Path, *, type_: str | None, weights: Path
) -> list[dict[str, float]]:
    """Train 20 iterations from ``weights``, which the first call makes, and return every loss.

    The host's own Swin trains without any fast path, in its neck and heads either.
    """
    cfg = runs.load(config, options, work_dir)
    if type_ is not None:
        cfg.model.backbone.type = type_
    cfg.randomness = dict(seed=1)
    cfg.load_from = str(weights)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.train_cfg.pop("val_interval", None)
    cfg.param_scheduler = []
    cfg.optim_wrapper.optimizer.lr = 1e-5
    runner = build_runner(cfg, splits=("train",))
    if not weights.exists():
        runner.model.init_weights()
        torch.save(dict(state_dict=runner.model.state_dict()), weights)
    # In double precision, since in single it is rounding that decides between nearly tied
    # proposals.
    runner.model.double()
    runner.model.backbone.register_forward_pre_hook(lambda module, args: (args[0].double(),))
    recorder = runs.LossRecorder()
    runner.register_hook(recorder)
    with fused.plain() if type_ is None else nullcontext():
        runner.train()
    return recorder.losses


@pytest.mark.parametrize("small", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("host", ["mmdet", "mmseg"])
def test_only_the_type_changed_gives_the_same_losses_over_20_iterations(
    host: str,
    small: bool,
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Winograd's method everywhere, on maps too small for it too
    monkeypatch.setitem(convolution._WIDE, torch.float64, 0.0)
    monkeypatch.setattr(convolution, "_MANY_TILES", 0)
    if host == "mmdet":
        config = runs.MMDET_SWIN
        options = runs.coco_options(shared_data / "coco_mini", short_side=128)
        options |= {"train_dataloader.batch_size": 1, "train_dataloader.dataset.indices": 20}
        options |= {"train_cfg.max_epochs": 1, "train_dataloader.dataset.filter_cfg": None}
    else:
        config = runs.MMSEG_SWIN
        options = runs.semantic_options(shared_data / "ade_mini", crop=64)
        options["train_cfg.max_iters"] = 20
    if small:
        options |= runs.small_swin(host)
    weights = tmp_path / "start.pth"
    theirs = losses_of(config, options, tmp_path / "a", type_=None, weights=weights)
    ours = losses_of(config, options, tmp_path / "b", type_=OURS, weights=weights)
    assert len(theirs) == len(ours) == 20
    for iteration, (want, got) in enumerate(zip(theirs, ours, strict=True)):
        assert got.keys() == want.keys()
        for name in want:
            assert got[name] == pytest.approx(want[name], rel=1e-4, abs=1e-6), (iteration, name)
    assert len({losses["loss"] for losses in ours}) == 20
