"""The pass over the validation images leaves a model and the random numbers as they were."""

from __future__ import annotations

import random
from typing import Any

import mmengine.dist
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from swin_dense.engine.val_loss import image_losses, mean_losses, twin_of


class Counter(nn.Module):
    """A model whose loss draws random numbers and counts what it saw, as Seesaw loss does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("seen", torch.zeros(()))
        self.history: list[float] = []
        object.__setattr__(self, "teacher", (nn.Linear(2, 2),))

    def data_preprocessor(self, batch: dict[str, Any], training: bool) -> dict[str, Any]:
        """Pass the batch on."""
        assert training  # masks are padded as in training
        return batch

    def _run_forward(self, data: dict[str, Any], mode: str) -> dict[str, Tensor]:
        assert mode == "loss"
        self.seen += 1
        self.history.append(float(self.seen))
        random.random()
        Counter.saw_distributed = mmengine.dist.is_distributed()
        value = (self.drop(self.norm(data["inputs"])) * self.weight).mean()
        losses = dict(loss_a=value + torch.rand(()) + float(np.random.rand()))
        if data["inputs"].sum() > 0:
            losses |= dict(loss_b=value * 2, acc=value)
        return losses

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum and all parts."""
        total = sum(value for name, value in losses.items() if "loss" in name)
        assert isinstance(total, Tensor)
        return total, dict(loss=total, **losses)

    saw_distributed = False


def test_the_model_and_the_random_numbers_stay_as_they_were() -> None:
    model = Counter().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    batches = [dict(inputs=torch.full((2, 3), value)) for value in (-1.0, 2.0, 4.0)]
    means = mean_losses(model, batches)
    assert model.training
    assert model.norm.training
    assert model.history == []
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # type: ignore[index]
    assert random.getstate() == states[2]

    # the same draws for each image; evaluation mode divides by sqrt(1 + eps) alone
    torch.manual_seed(0)
    drawn = float(torch.rand(())) + float(np.random.RandomState(0).rand())
    scale = 1 / np.sqrt(1 + model.norm.eps)
    assert means["loss_a"] == pytest.approx(drawn + scale * (-1 + 2 + 4) / 3, rel=1e-6)
    assert means["loss_b"] == pytest.approx(scale * (0 + 4 + 8) / 3, rel=1e-6)  # 0 where absent
    assert means["loss"] == pytest.approx(means["loss_a"] + means["loss_b"], rel=1e-6)
    assert means["acc"] == pytest.approx(scale * (2 + 4) / 2, rel=1e-6)
    assert mean_losses(model, batches[::-1]) == means
    assert next(iter(means)) == "loss"


def test_the_twin_shares_parameters_a_hidden_teachers_too_and_nothing_else() -> None:
    model = Counter()
    model.norm.compile(backend="eager")
    twin = twin_of(model)
    assert twin.norm._compiled_call_impl is None  # a second graph would take minutes to compile
    assert not twin.training
    assert model.training
    shared = {id(parameter) for parameter in model.parameters()}
    assert {id(parameter) for parameter in twin.parameters()} == shared
    assert twin.teacher[0].weight is model.teacher[0].weight  # type: ignore[union-attr, index]
    assert twin.seen is not model.seen
    assert twin.norm.running_mean is not model.norm.running_mean


def test_heads_that_average_over_the_processes_see_one_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert mmengine.dist.is_distributed()
    batch = dict(inputs=torch.ones(2, 3))
    image_losses(twin_of(Counter()), batch, fp16=False)
    assert not Counter.saw_distributed
    assert mmengine.dist.is_distributed()


def test_a_loss_that_is_no_number_is_reported_as_such() -> None:
    batches = [dict(inputs=torch.full((2, 3), value)) for value in (1.0, float("nan"))]
    assert np.isnan(mean_losses(Counter(), batches)["loss"])
