from __future__ import annotations

import math

import pytest

from agent.confirmation.measures import costs_of, count_spikes, speed_of, stability_of
from agent.duel import Pair
from sandbox.jobs import Vitals
from tests.agent.confirmation.builders import duel_of, trained


def falling(rate: float) -> tuple[tuple[int, float], ...]:
    return tuple((step, 5.0 - rate * step) for step in range(40))


def test_a_loss_that_falls_twice_as_fast_gets_there_in_half_the_steps() -> None:
    pairs = duel_of([-0.1], curve=falling(0.1)).pairs

    speed = speed_of(pairs)

    assert speed is not None
    assert speed.step_ratio == pytest.approx(0.5, abs=0.03)
    assert (speed.reached, speed.pairs) == (1, 1)


def test_a_loss_that_never_falls_so_far_does_not_get_there() -> None:
    speed = speed_of(duel_of([0.1, 0.1], curve=falling(0.01)).pairs)

    assert speed is not None
    assert math.isinf(speed.step_ratio)
    assert (speed.reached, speed.pairs) == (0, 2)


def test_a_program_is_as_fast_as_itself() -> None:
    speed = speed_of(duel_of([0.0]).pairs)

    assert speed is not None
    assert speed.step_ratio == 1.0


def test_without_a_whole_pair_there_is_no_speed() -> None:
    assert speed_of(duel_of([None]).pairs) is None


@pytest.mark.parametrize(
    ("norms", "spikes"),
    [
        ([1.0] * 40, 0),
        ([1.0] * 20 + [3.9] + [1.0] * 19, 0),
        ([1.0] * 20 + [4.1] + [1.0] * 19, 1),
        ([1.0] * 20 + [math.inf, math.nan] + [1.0] * 18, 2),
        ([100.0] * 5 + [1.0] * 35, 0),
        ([], 0),
    ],
)
def test_a_spike_is_four_times_the_usual_gradient(norms: list[float], spikes: int) -> None:
    assert count_spikes(norms) == spikes


def test_runs_that_fail_or_meet_numbers_that_are_not_finite_are_counted() -> None:
    infinite = Vitals(gradient_norms=((0, math.inf),), resident_bytes=None)
    runs = [trained(2.0), trained(None), trained(2.0, vitals=infinite), trained(2.0, vitals=None)]

    found = stability_of(runs)

    assert (found.runs, found.failures, found.non_finite) == (4, 1, 2)


def test_costs_are_those_of_the_median_pair() -> None:
    times = (0.01, 0.012, 0.9)  # a busy machine lengthens a run now and then
    pairs = [
        Pair(seed=k, candidate=trained(2.0, jail_cpu_s=t), incumbent=trained(2.0, jail_cpu_s=0.01))
        for k, t in enumerate(times)
    ]

    costs = costs_of(pairs, None)

    assert costs.cpu_ratio == pytest.approx(1.2)
    assert (costs.state_bytes, costs.baseline_state_bytes) == (None, None)
