"""The schedules at their corner points, and horizons too short for them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanochat import optim
from nanochat.contract import Horizon, ParamInfo, Role, TrainingState

TOTAL = 2000  # long enough for the shipped schedules to keep out of each other's way


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 1 / 40),
        (38, 39 / 40),
        (39, 1.0),
        (40, 1.0),
        (700, 1.0),  # the warm-down covers the last 65 %: 1300 steps
        (701, 1.0 - 0.95 / 1300),
        (1350, 0.525),
        (1999, 0.05 + 0.95 / 1300),
    ],
)
def test_the_learning_rate_is_a_trapezoid(step: int, expected: float) -> None:
    settings = optim.matrix_settings(step, TOTAL)

    assert settings.lr == pytest.approx(0.02 * expected, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.85), (200, 0.91), (400, 0.97), (700, 0.97), (1350, 0.935), (2000, 0.90)],
)
def test_the_momentum_warms_up_and_cools_down(step: int, expected: float) -> None:
    assert optim.momentum_at(step, TOTAL) == pytest.approx(expected, rel=1e-12)


def test_an_overlapping_momentum_schedule_has_no_jumps() -> None:
    momenta = [optim.momentum_at(step, 500) for step in range(501)]

    steepest = max(abs(b - a) for a, b in pairwise(momenta))
    assert steepest < 0.001
    assert momenta[-1] == pytest.approx(0.90)


@pytest.mark.parametrize(
    ("shape", "quarter", "half", "end"),
    [
        ("constant", 1.0, 1.0, 1.0),
        ("linear", 0.75, 0.5, 0.0),
        ("cosine", 0.5 + math.sqrt(0.125), 0.5, 0.0),
    ],
)
def test_the_weight_decay_follows_its_shape(
    monkeypatch: pytest.MonkeyPatch, shape: str, quarter: float, half: float, end: float
) -> None:
    monkeypatch.setattr(optim.SCHEDULE, "weight_decay_shape", shape)

    at = [optim.matrix_settings(step, TOTAL).weight_decay for step in (0, 500, 1000, 2000)]

    assert at == pytest.approx([0.28, 0.28 * quarter, 0.28 * half, 0.28 * end], abs=1e-12)


def test_the_nesterov_blend_is_the_momentum_until_it_is_scheduled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coupled = optim.matrix_settings(200, TOTAL)
    monkeypatch.setattr(optim.SCHEDULE, "nesterov_blend", "scheduled")
    scheduled = [optim.matrix_settings(step, TOTAL) for step in (0, 250, 500, 1999)]

    assert coupled.nesterov_blend == coupled.momentum
    blends = [settings.nesterov_blend for settings in scheduled]
    assert blends == pytest.approx([0.7, 0.825, 0.95, 0.95])


def test_the_beta2_warm_up_is_over_unless_it_is_switched_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    off = optim.matrix_settings(0, TOTAL).beta2_warmup
    monkeypatch.setattr(optim.SCHEDULE, "beta2_warmup", True)
    on = [optim.matrix_settings(step, TOTAL).beta2_warmup for step in (0, 250, 500, 501)]

    assert off == 1.0
    assert on == [0.0, 0.5, 1.0, 1.0]


def test_a_ramp_of_no_steps_is_over_at_once() -> None:
    assert optim.ramp(0, 0) == 1.0
    assert optim.trapezoid(0, 10, 0, 0.0, 0.05) == 1.0


@given(
    total=st.integers(1, 50),
    warmup=st.integers(0, 60),
    warmdown=st.floats(0, 1),
    final=st.floats(0, 1),
)
def test_a_learning_rate_never_leaves_its_range_however_short_the_run(
    total: int, warmup: int, warmdown: float, final: float
) -> None:
    rates = [optim.trapezoid(step, total, warmup, warmdown, final) for step in range(total)]

    assert all(0.0 < rate <= 1.0 for rate in rates)


def parameter() -> ParamInfo:
    return ParamInfo(
        tensor=torch.nn.Parameter(torch.ones(2, 2)), name="m", role=Role.MATRIX, layer=0
    )


def horizon(total_steps: int) -> Horizon:
    return Horizon(total_steps=total_steps, tokens_per_step=1, model_width=768)


@pytest.mark.parametrize("table", ["SCHEDULE", "ADAMW"])
def test_a_horizon_shorter_than_a_warm_up_is_refused(
    monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    monkeypatch.setattr(getattr(optim, table), "warmup_steps", 50)

    with pytest.raises(optim.HorizonError, match=f"{table}.warmup_steps") as caught:
        optim.build_optimizer([parameter()], horizon(51))

    assert (caught.value.total_steps, caught.value.needed_steps) == (51, 52)
    optim.build_optimizer([parameter()], horizon(52))


def test_eight_steps_are_enough_for_short_warm_ups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim.SCHEDULE, "warmup_steps", 5)
    monkeypatch.setattr(optim.ADAMW, "warmup_steps", 5)
    info = parameter()
    optimizer = optim.build_optimizer([info], horizon(8))

    seen = [info.tensor.detach().clone()]
    for step in range(8):
        info.tensor.grad = torch.eye(2)
        optimizer.observe(TrainingState(step=step, total_steps=8, loss=1.0, tokens=0))
        optimizer.step()
        seen.append(info.tensor.detach().clone())

    moves = [float((b - a).norm()) for a, b in pairwise(seen)]
    assert all(move > 0.0 for move in moves)
    assert max(moves) <= 0.021 * math.sqrt(2) + 0.01  # no step beyond the peak rate and decay
