from __future__ import annotations

import numpy as np

from agent.calibration.incumbents import Policy, Sharing, simulate
from agent.calibration.noise import Noise
from agent.calibration.searches import World

ROWS = np.random.default_rng(1).standard_normal((2, 40)) * 0.005
NOISE = Noise(
    name="normal", reference=ROWS[0] - ROWS[0].mean(), difference=ROWS[1] - ROWS[1].mean()
)


def simulated(challengers: int | None, *, effects: tuple[float, ...] = (0.0,)) -> Sharing:
    world = World(noises=(NOISE,), effects_bpb=effects, budget_runs=600, cpu_s_per_run=1.0)
    policy = Policy(challengers=challengers, from_election=True)
    return simulate(policy, world, searches=150, rng=np.random.default_rng(2))


def test_sharing_a_champions_runs_saves_runs_and_lets_the_lucky_stay() -> None:
    """The luck is some seven standard errors from none, and from that of fresh runs."""
    fresh, shared = simulated(1), simulated(None)

    assert shared.runs_per_candidate < 0.6 * fresh.runs_per_candidate
    assert shared.incumbent_luck_bpb < -0.0001
    assert abs(fresh.incumbent_luck_bpb) < 0.0001


def test_without_any_gain_to_find_every_promotion_is_fooled_and_nothing_is_gained() -> None:
    found = simulated(8)

    assert found.fooled is not None
    assert found.fooled.share == 1.0
    assert (found.found, found.true_gain_bpb) == (None, 0.0)


def test_large_gains_are_found_under_any_policy() -> None:
    for challengers in (1, 8, None):
        found = simulated(challengers, effects=(-0.02, 0.02))

        assert found.found is not None
        assert found.found.share > 0.95
