from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from agent.calibration.noise import Draws, noises_of
from agent.calibration.rules import Outcome, Rule, best_ever, sequential
from agent.calibration.searches import Searches, World, search
from agent.statistics.paired_test import Design
from tests.agent.calibration.pools import made_up

NOISES = noises_of(made_up())


def searched(rule: Rule, effects: list[float], *, budget: int = 100) -> Searches:
    world = World(noises=NOISES, effects_bpb=effects, budget_runs=budget, cpu_s_per_run=9.0)
    return search(rule, world, searches=200, rng=np.random.default_rng(41))


def test_gains_that_dwarf_the_noise_add_up_and_are_reported_as_they_are() -> None:
    found = searched(sequential(Design()), [-0.5])

    # Four pairs of both programs each, since a new champion has no runs yet on its own seeds.
    assert found.promotions == pytest.approx(13.0, abs=0.3)
    assert found.true_gain_bpb == pytest.approx(0.5 * found.promotions)
    assert found.reported_gain_bpb == pytest.approx(found.true_gain_bpb, rel=0.01)
    assert found.fooled is not None
    assert found.fooled.count == 0


def test_a_champions_runs_are_paid_once_for_all_its_challengers() -> None:
    judge, decisions = sequential(Design()), 0

    def counted(draws: Draws, recorded: NDArray[np.float64]) -> Outcome:
        nonlocal decisions
        decisions += 1
        return judge.decide(draws, recorded)

    found = searched(Rule(name="counted", pairs=judge.pairs, decide=counted), [0.5], budget=100)

    # Two pairs each: 4 runs for the first challenger and 2 for every later one; 25 if paid twice.
    assert decisions == 49
    assert (found.promotions, found.fooled) == (0.0, None)


def test_the_greedy_rule_reports_gains_where_there_are_none() -> None:
    found = searched(best_ever(), [0.0])

    assert found.true_gain_bpb == 0.0
    assert found.reported_gain_bpb > 0.02
    assert found.fooled is not None
    assert found.fooled.share == 1.0


def test_a_lucky_record_is_hard_to_beat_for_the_greedy_rule() -> None:
    short, long = searched(best_ever(), [0.0], budget=10), searched(best_ever(), [0.0], budget=100)

    # Records of n draws come by like 1/n: ln(10) = 2.3 more in 90 more runs.
    assert long.promotions - short.promotions == pytest.approx(2.3, abs=0.5)


def test_a_clear_gain_is_confirmed_and_its_compute_counted() -> None:
    found = searched(sequential(Design()), [-0.05], budget=400)

    assert found.claims.share == 1.0
    assert found.false_claims.count == 0
    assert found.confirmed_gain_bpb == pytest.approx(found.true_gain_bpb, rel=0.01)
    # 400 runs of 9 s are an hour; the last decision goes a little beyond; 40 confirm.
    assert found.confirmed_gain_bpb / found.confirmed_gain_per_core_hour == pytest.approx(
        1.1, abs=0.02
    )


def test_what_never_got_promoted_is_neither_confirmed_nor_claimed() -> None:
    found = searched(sequential(Design()), [0.5])

    assert found.claims.count == 0
    assert (found.confirmed_gain_bpb, found.confirmed_gain_per_core_hour) == (0.0, 0.0)


def test_searches_with_nothing_to_find_claim_at_most_at_the_nominal_rate() -> None:
    world = World(noises=NOISES, effects_bpb=[0.0], budget_runs=60, cpu_s_per_run=9.0)
    searches = 4_000

    found = search(best_ever(), world, searches=searches, rng=np.random.default_rng(42))

    assert found.promotions > 1.0
    assert found.false_claims.count == found.claims.count
    # The upper 1e-4 quantile of what 1 % gives: the false-alarm rate of this test, at most.
    assert found.claims.count <= stats.binom.isf(1e-4, searches, 0.01)
