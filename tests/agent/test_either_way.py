"""Which of two programs is better, if either is: what the test says, and how often it errs."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.either_way import decide_either_way, two_sided
from agent.statistics.paired_test import Decision, DecisionKind, Design, DesignError, decide

DESIGN = two_sided(Design())
differences = st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=DESIGN.max_pairs)


def decided(values: list[float], design: Design = DESIGN) -> Decision:
    """Look after every pair, as a duel does, and return the decision that ends it."""
    decision = decide_either_way(values[:1], design)
    for count in range(2, len(values) + 1):
        if decision.kind is not DecisionKind.CONTINUE:
            break
        decision = decide_either_way(values[:count], design)
    return decision


def test_each_question_is_asked_with_half_of_the_error() -> None:
    assert two_sided(Design(alpha=0.05)).alpha == 0.025


def test_pairs_that_suffice_one_question_may_be_too_few_for_two() -> None:
    one = Design(max_pairs=4, alpha=0.05)

    with pytest.raises(DesignError):
        two_sided(one)


def test_a_clear_gain_is_found() -> None:
    decision = decided([-0.010, -0.011, -0.009, -0.010, -0.012, -0.010])

    assert decision.kind is DecisionKind.ACCEPT
    assert decision.effect.high < 0.0


def test_a_clear_loss_is_found_and_said_to_be_one() -> None:
    decision = decided([0.010, 0.011, 0.009, 0.010, 0.012, 0.010])

    assert decision.kind is DecisionKind.REJECT
    assert decision.effect.low > 0.0
    assert decision.reason.startswith("worse after")


def test_programs_that_agree_closely_are_called_so() -> None:
    decision = decided([1e-5, -1e-5] * 12)

    assert decision.kind is DecisionKind.REJECT
    assert "0.0005 bpb is excluded" in decision.reason
    assert decision.effect.low < 0.0 < decision.effect.high


def test_equal_scores_end_without_a_difference() -> None:
    decision = decided([0.0] * 24)

    assert decision.kind is DecisionKind.REJECT
    assert (decision.effect.low, decision.effect.high) == (0.0, 0.0)
    assert decision.log_e < 0.0


def test_a_draw_at_the_last_pair_is_no_win() -> None:
    design = two_sided(Design(max_pairs=6, least_chance=0.0))

    decision = decided([0.02, -0.03, 0.05, -0.04, 0.01, -0.02], design)

    assert decision.reason == "not told apart in 6 pairs"


@given(values=differences)
def test_swapping_the_programs_mirrors_the_answer(values: list[float]) -> None:
    ours = decide_either_way(values, DESIGN)
    theirs = decide_either_way([-value for value in values], DESIGN)

    assert ours.effect.mean == pytest.approx(-theirs.effect.mean)
    assert ours.effect.low == pytest.approx(-theirs.effect.high)
    assert ours.log_e == pytest.approx(theirs.log_e)
    assert (ours.kind is DecisionKind.CONTINUE) == (theirs.kind is DecisionKind.CONTINUE)


@given(values=differences)
def test_the_evidence_is_the_mean_of_the_evidence_of_both_sides(values: list[float]) -> None:
    one_sided = partial(decide, design=DESIGN)
    sides = [one_sided(values).log_e, one_sided([-value for value in values]).log_e]

    assert decide_either_way(values, DESIGN).log_e == pytest.approx(
        math.log(sum(map(math.exp, sides)) / 2.0)
    )


@pytest.mark.slow
def test_equal_programs_are_rarely_called_different() -> None:
    """Of 400 comparisons 5 % would be 20; more than 33 have a chance below 1 in 400."""
    rng = np.random.default_rng(5)

    called = 0
    for _ in range(400):
        effect = decided(list(rng.normal(0.0, 0.005, DESIGN.max_pairs))).effect
        called += effect.high < 0.0 or effect.low > 0.0

    assert called <= 33
