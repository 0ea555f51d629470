"""What a run is fitted with on a CPU, and what its log says of it."""

from __future__ import annotations

from typing import Any

import pytest
from mmengine.config import Config
from torch import nn

from swin_dense.engine import runtime
from swin_dense.layers.convolution import Convolution


@pytest.fixture(autouse=True)
def _on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "on_cpu", lambda: True)


def fitted(optimizer: dict[str, Any]) -> tuple[Config, str]:
    cfg = Config(dict(model=dict(), optim_wrapper=dict(type="OptimWrapper", optimizer=optimizer)))
    return cfg, "\n".join(runtime.fit_to_machine(cfg))


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "SGD"])
def test_the_optimizer_steps_in_one_pass_and_the_log_says_so(kind: str) -> None:
    cfg, log = fitted(dict(type=kind, lr=0.1))
    assert cfg.optim_wrapper.optimizer == dict(type=kind, lr=0.1, fused=True)
    assert "one pass over the weights (fused=True)" in log


@pytest.mark.parametrize(
    "optimizer",
    [
        dict(type="AdamW", lr=0.1, fused=False),
        dict(type="AdamW", lr=0.1, foreach=True),
        dict(type="RMSprop", lr=0.1),  # has no such step
    ],
    ids=str,
)
def test_an_optimizer_that_was_chosen_otherwise_stays(optimizer: dict[str, Any]) -> None:
    cfg, log = fitted(dict(optimizer))
    assert cfg.optim_wrapper.optimizer == optimizer
    assert "fused" not in log


def test_a_config_without_an_optimizer_is_fitted_too() -> None:
    cfg = Config(dict(model=dict()))
    assert "large allocations" in "\n".join(runtime.fit_to_machine(cfg))
    assert "optim_wrapper" not in cfg


def test_a_built_model_is_quickened_and_the_log_says_how_much() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 2, 2))
    (note,) = runtime.quicken(model)
    assert note.startswith("CPU: 2 convolutions multiply less")
    assert [type(layer) is Convolution for layer in model] == [True, False, True, False]
    assert runtime.quicken(nn.Linear(2, 2)) == []


def test_elsewhere_a_model_stays_as_it_was_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "on_cpu", lambda: False)
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    assert runtime.quicken(model) == []
    assert type(model[0]) is nn.Conv2d
