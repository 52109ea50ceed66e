from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from agent.statistics.paired_test import (
    Decision,
    DecisionKind,
    Design,
    DesignError,
    TooFewPairsError,
    boundaries,
    decide,
)

DESIGN = Design()
DIFFERENCES = st.lists(
    st.floats(-0.02, 0.02).map(lambda x: round(x, 5)), min_size=1, max_size=DESIGN.max_pairs
)


def decided(differences: list[float], design: Design = DESIGN) -> Decision:
    """Look after every pair until the test decides."""
    for pairs in range(1, len(differences) + 1):
        decision = decide(differences[:pairs], design)
        if decision.kind is not DecisionKind.CONTINUE:
            return decision
    raise AssertionError("the test did not decide")


def around(mean: float, sd: float, pairs: int) -> list[float]:
    """Return differences of exactly this mean and sd."""
    spread = np.random.default_rng(7).standard_normal(pairs)
    spread = (spread - spread.mean()) / spread.std(ddof=1)
    return list(mean + sd * spread)


def test_one_pair_decides_nothing_and_has_no_interval() -> None:
    decision = decide([-0.01], DESIGN)

    assert decision.kind is DecisionKind.CONTINUE
    assert (decision.effect.low, decision.effect.high) == (-math.inf, math.inf)


def test_a_clear_gain_is_accepted_with_an_interval_below_zero() -> None:
    decision = decide(around(-0.005, 0.002, 8), DESIGN)

    assert decision.kind is DecisionKind.ACCEPT
    assert decision.effect.mean == pytest.approx(-0.005)
    assert decision.effect.low < -0.005 < decision.effect.high < 0.0
    assert decision.effect.pairs == 8


def test_a_gain_that_is_real_and_too_small_to_matter_is_rejected() -> None:
    decision = decide(around(-0.0002, 0.0001, 10), DESIGN)

    assert decision.effect.high < 0.0
    assert decision.kind is DecisionKind.REJECT
    assert "0.0005 bpb is excluded" in decision.reason


def test_the_same_program_twice_is_rejected_after_four_pairs() -> None:
    decision = decided([0.0] * 24)

    assert (decision.kind, decision.effect.pairs) == (DecisionKind.REJECT, 4)


def test_the_same_gain_on_every_seed_is_accepted_after_four_pairs() -> None:
    decision = decided([-0.003] * 24)

    assert (decision.kind, decision.effect.pairs) == (DecisionKind.ACCEPT, 4)


def test_rounding_noise_is_never_promoted() -> None:
    rng = np.random.default_rng(43)

    kinds = {decided(list(rng.normal(0.0, 4e-5, 24))).kind for _ in range(200)}

    assert kinds == {DecisionKind.REJECT}


def test_a_candidate_that_is_far_behind_is_given_up_after_two_pairs() -> None:
    decision = decide([0.05, 0.04], DESIGN)

    assert decision.kind is DecisionKind.REJECT
    assert "little chance" in decision.reason


def test_a_test_that_runs_out_of_pairs_rejects() -> None:
    decision = decide(around(-0.001, 0.003, 24), DESIGN)

    assert decision.kind is DecisionKind.REJECT
    assert "not shown to be better in 24 pairs" in decision.reason


@given(differences=DIFFERENCES)
def test_only_intervals_below_zero_are_accepted(differences: list[float]) -> None:
    decision = decide(differences, DESIGN)

    if decision.kind is DecisionKind.ACCEPT:
        assert decision.effect.high < 0.0
    else:
        assert decision.effect.high >= 0.0 or "excluded" in decision.reason


@given(differences=DIFFERENCES)
def test_the_interval_lies_below_zero_where_the_evidence_reaches_one_over_alpha(
    differences: list[float],
) -> None:
    decision = decide(differences, DESIGN)

    if abs(decision.log_e - math.log(20.0)) > 1e-6:
        assert (decision.effect.high < 0.0) == (decision.log_e > math.log(20.0))


@given(differences=DIFFERENCES)
def test_the_order_of_the_pairs_does_not_matter(differences: list[float]) -> None:
    forward, backward = decide(differences, DESIGN), decide(differences[::-1], DESIGN)

    assert forward.log_e == pytest.approx(backward.log_e, abs=1e-9)
    assert forward.effect.mean == pytest.approx(backward.effect.mean, abs=1e-12)


def test_the_last_look_gives_up_exactly_what_it_does_not_accept() -> None:
    assert math.isinf(boundaries(DESIGN).futile[-1])
    assert math.isfinite(boundaries(DESIGN).critical[-1])


@pytest.mark.parametrize("pairs", [3, 8, 20])
def test_giving_up_means_that_acceptance_has_a_predicted_chance_of_one_in_ten(pairs: int) -> None:
    limit = boundaries(DESIGN).futile[pairs - 1]
    mean, left, draws = limit / math.sqrt(pairs), DESIGN.max_pairs - pairs, 200_000
    rng = np.random.default_rng(44)

    # The posterior of mean and variance under the usual flat prior, and the pairs to come.
    variance = (pairs - 1) / rng.chisquare(pairs - 1, draws)
    future = left * rng.normal(mean, np.sqrt(variance / pairs))
    total = pairs * mean + future + rng.normal(0.0, np.sqrt(left * variance))
    chance = (total < -boundaries(DESIGN).critical[-1] * math.sqrt(DESIGN.max_pairs)).mean()

    assert chance == pytest.approx(DESIGN.least_chance, abs=0.004)  # six standard errors


def test_a_test_that_never_gives_up_early_has_no_futile_statistics() -> None:
    assert set(boundaries(Design(least_chance=0.0)).futile) == {math.inf}


def test_no_pairs_at_all_are_refused_with_the_number_needed() -> None:
    with pytest.raises(TooFewPairsError) as caught:
        decide([], DESIGN)

    assert (caught.value.found, caught.value.needed) == (0, 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_difference_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        decide([0.001, bad], DESIGN)


def test_more_pairs_than_planned_are_refused() -> None:
    with pytest.raises(ValueError, match="ends at 24"):
        decide([0.0] * 25, DESIGN)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": 0.5}, "alpha"),
        ({"least_chance": 1.0}, "least_chance"),
        ({"prior_sd": 0.0}, "prior_sd"),
        ({"smallest_gain_bpb": math.nan}, "smallest_gain_bpb"),
        ({"max_pairs": 3}, "allow more pairs"),
        ({"alpha": 1e-6, "max_pairs": 6}, "allow more pairs"),
    ],
)
def test_a_design_that_cannot_work_is_refused(change: dict[str, float], complaint: str) -> None:
    with pytest.raises(DesignError, match=complaint):
        Design(**change)  # type: ignore[arg-type]  # the values are the point


@pytest.mark.parametrize("least_chance", [0.0, 0.1])
def test_a_candidate_without_gain_is_accepted_at_most_at_the_nominal_rate(
    least_chance: float,
) -> None:
    design = Design(least_chance=least_chance, smallest_gain_bpb=0.0)
    trials, rng = 400, np.random.default_rng(45)

    wins = sum(
        decided(list(rng.normal(0.0, 0.005, 24)), design).kind is DecisionKind.ACCEPT
        for _ in range(trials)
    )

    assert wins <= stats.binom.isf(1e-4, trials, 0.05)  # false-alarm rate 1e-4
