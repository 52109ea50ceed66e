from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat import optim
from nanochat.contract import Choice
from nanochat.dials import DIALS, Step, knobs_of, mutate, scaled_warmups, start_point


@pytest.mark.parametrize("name", sorted(DIALS))
def test_a_dial_never_leaves_the_bounds_of_its_knobs(name: str) -> None:
    dial = DIALS[name]

    for knob in dial.knobs:
        bounds: Any = optim.BOUNDS[knob]
        if isinstance(bounds, Choice):
            assert set(dial.values) <= set(bounds.values)
        else:
            assert bounds.low <= dial.low <= dial.high <= bounds.high


def test_no_knob_hangs_on_two_dials() -> None:
    counts = Counter(knob for dial in DIALS.values() for knob in dial.knobs)

    assert set(counts.values()) == {1}


def test_a_point_sets_all_knobs_of_its_dials() -> None:
    knobs = knobs_of({**start_point(), "momentum": 0.9})

    momenta = ["momentum_start", "momentum_peak", "momentum_end"]
    assert [knobs[f"SCHEDULE.{key}"] for key in momenta] == [0.9, 0.9, 0.9]


@given(seed=st.integers(0, 2**32))
def test_a_walk_turns_one_to_three_dials_at_a_time_and_stays_in_range(seed: int) -> None:
    rng = np.random.default_rng(seed)
    point = start_point()

    for _ in range(5):
        moved = mutate(point, rng)
        turned = [name for name in DIALS if moved[name] != point[name]]
        assert 1 <= len(turned) <= 3
        for name in turned:
            dial, value = DIALS[name], moved[name]
            if dial.step is Step.CHOICE:
                assert value in dial.values
            else:
                assert dial.low <= float(value) <= dial.high
        point = moved


def test_a_walk_follows_from_its_seed() -> None:
    points = [mutate(start_point(), np.random.default_rng(7)) for _ in range(2)]

    assert points[0] == points[1]


def test_scaled_warmups_change_nothing_while_all_warmups_are_off() -> None:
    """They lengthen ramps between equal ends, or ramps that are switched off."""
    knobs = knobs_of(start_point())

    assert not set(knobs) & set(scaled_warmups(400))
    assert knobs["SCHEDULE.momentum_start"] == knobs["SCHEDULE.momentum_peak"]
    schedule = optim.SCHEDULE
    assert (schedule.nesterov_blend, schedule.beta2_warmup) == ("momentum", False)
    assert all(0 < float(steps) < 400 for steps in scaled_warmups(400).values())
