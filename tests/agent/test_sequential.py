from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from agent.sequential import (
    LOOKS,
    Decision,
    DecisionKind,
    decide,
    paired_effect,
    single_pair,
)

DIFFERENCES = st.lists(
    st.floats(-1.0, 1.0).map(lambda x: round(x, 6)), min_size=8, max_size=8
).flatmap(lambda found: st.sampled_from([found[:2], found[:4], found]))


def decided(differences: list[float]) -> Decision:
    """Look as often as the test asks for."""
    for look in LOOKS:
        decision = decide(differences[: look.pairs])
        if decision.kind is not DecisionKind.CONTINUE:
            return decision
    raise AssertionError("the last look did not decide")


def accepted_share(gain_sd: float, trials: int, seed: int) -> float:
    rng = random.Random(seed)  # noqa: S311 - a simulation
    races = ([rng.gauss(-gain_sd, 1.0) for _ in range(8)] for _ in range(trials))
    return sum(decided(race).kind is DecisionKind.ACCEPT for race in races) / trials


def test_the_looks_spend_no_more_than_five_percent_together() -> None:
    assert math.fsum(look.alpha for look in LOOKS) == pytest.approx(0.05)


def test_a_program_without_gain_is_accepted_in_at_most_five_percent_of_races() -> None:
    trials = 4000
    # The upper 1e-4 quantile of what 5 % gives: the false-alarm rate of this test, at most.
    allowed = stats.binom.isf(1e-4, trials, 0.05) / trials

    assert accepted_share(0.0, trials, seed=20) <= allowed


def test_giving_up_early_is_not_what_keeps_false_acceptances_rare() -> None:
    rng = random.Random(21)  # noqa: S311 - a simulation
    trials, accepted = 4000, 0
    for _ in range(trials):
        race = [rng.gauss(0.0, 1.0) for _ in range(8)]
        kinds = {decide(race[: look.pairs]).kind for look in LOOKS}
        accepted += DecisionKind.ACCEPT in kinds

    assert accepted / trials <= stats.binom.isf(1e-4, trials, 0.05) / trials


def test_a_gain_of_one_and_a_half_standard_deviations_is_usually_found() -> None:
    assert accepted_share(1.5, 1000, seed=22) > 0.9  # 0.95 by a larger simulation


@given(differences=DIFFERENCES)
def test_acceptance_means_that_the_interval_lies_below_zero(differences: list[float]) -> None:
    decision = decide(differences)

    assert (decision.kind is DecisionKind.ACCEPT) == (decision.effect.high < 0.0)


@given(differences=DIFFERENCES)
def test_the_p_value_is_that_of_the_one_sided_paired_t_test(differences: list[float]) -> None:
    if len(set(differences)) == 1:
        return  # undefined there
    expected = stats.ttest_1samp(differences, 0.0, alternative="less").pvalue

    assert decide(differences).p == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_the_interval_is_student_t_at_its_confidence() -> None:
    differences = [-0.01, -0.03, 0.01, -0.02]
    error = stats.sem(differences)
    low, high = stats.t.interval(0.95, 3, loc=-0.0125, scale=error)

    effect = paired_effect(differences)

    assert effect.pairs == 4
    assert [effect.mean, effect.low, effect.high] == pytest.approx([-0.0125, low, high])


def test_no_average_gain_at_the_first_look_ends_the_race() -> None:
    assert decide([0.01, -0.01]).kind is DecisionKind.REJECT


def test_a_weak_gain_at_the_second_look_ends_the_race() -> None:
    assert decide([-0.02, 0.01, -0.01, 0.015]).kind is DecisionKind.REJECT


def test_an_undecided_second_look_asks_for_more_pairs() -> None:
    assert decide([-0.02, 0.001, -0.03, -0.001]).kind is DecisionKind.CONTINUE


def test_the_last_look_always_decides() -> None:
    assert decide([-0.03, 0.01] * 4).kind is DecisionKind.REJECT


def test_programs_equal_on_every_seed_are_no_improvement() -> None:
    decision = decide([0.0, 0.0])

    assert (decision.kind, decision.p) == (DecisionKind.REJECT, 1.0)


def test_a_gain_equal_to_the_last_bit_on_every_seed_is_accepted() -> None:
    decision = decide([-0.01, -0.01])

    assert (decision.kind, decision.p) == (DecisionKind.ACCEPT, 0.0)
    assert decision.effect.low == decision.effect.high == -0.01


@pytest.mark.parametrize("pairs", [0, 1, 3, 5, 16])
def test_a_look_nobody_planned_is_refused(pairs: int) -> None:
    with pytest.raises(ValueError, match="no look is planned"):
        decide([-0.01 * k for k in range(pairs)])


def test_one_pair_leaves_the_interval_unbounded() -> None:
    effect = single_pair(-0.02)

    assert (effect.mean, effect.low, effect.high) == (-0.02, -math.inf, math.inf)


def test_an_interval_from_one_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="two pairs"):
        paired_effect([-0.02])
