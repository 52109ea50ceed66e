from __future__ import annotations

import math
from dataclasses import replace

import pytest

from agent.confirmation.findings import Findings, RatePoint, Rates, Standing
from tests.agent.confirmation.builders import PLAN, found_on, rates_of, trained


def test_each_side_is_at_its_best_where_its_mean_is_lowest() -> None:
    rates = rates_of(-0.02, -0.03)

    assert rates.best_ours.factor == rates.best_theirs.factor == 1.0


def test_of_equal_rates_the_programs_own_is_taken() -> None:
    points = tuple(
        RatePoint(factor=f, source=str(f), runs=(trained(2.0),)) for f in (0.5, 1.0, 2.0)
    )

    assert Rates(ours=points, theirs=points).best_ours.factor == 1.0


def test_a_rate_at_which_a_run_fails_is_nobodys_best_and_no_difference() -> None:
    rates = rates_of(-0.02, -0.03)
    failing = replace(rates.ours[1], runs=(trained(None), trained(1.0)))
    rates = replace(rates, ours=(rates.ours[0], failing, rates.ours[2]))

    assert math.isinf(failing.bpb)
    assert rates.best_ours.factor != 1.0
    assert rates.differences == pytest.approx((-0.02, -0.03))


def test_differences_over_rates_are_means_by_seed() -> None:
    assert rates_of(-0.02, 0.01).differences == pytest.approx((-0.02, 0.01))


def test_a_sweep_of_one_rate_says_nothing_of_rates() -> None:
    assert rates_of(-0.02, -0.03, factors=(1.0,)).standing is Standing.NOT_APPLICABLE


def test_a_condition_is_shown_only_with_all_its_pairs() -> None:
    condition = PLAN.conditions[0]

    whole, part = found_on(condition), found_on(condition, [-0.02, -0.021])

    assert (whole.standing, part.standing) == (Standing.HELD, Standing.NOT_TESTED)
    assert part.p is None
    assert part.effect is not None


def test_a_condition_on_which_the_program_is_behind_fails() -> None:
    condition = PLAN.conditions[0]

    assert found_on(condition, [0.02, 0.021, 0.02, 0.02, 0.02, 0.02]).standing is Standing.FAILED


def test_a_sweep_goes_on_beyond_the_edge_at_which_either_side_is_at_its_best() -> None:
    inner, low = rates_of(-0.02, -0.03), rates_of(-0.02, -0.03, factors=(1.0, 2.0))
    high = rates_of(-0.02, -0.03, factors=(0.5, 1.0))

    assert inner.further_factors() == ()
    assert low.further_factors() == (0.71,)
    assert high.further_factors() == (1.4,)


def test_joined_sweeps_are_in_the_order_of_their_factors() -> None:
    joined = rates_of(-0.02, -0.03, factors=(1.0, 2.0)).joined(
        rates_of(-0.02, -0.03, factors=(0.5,))
    )

    assert [point.factor for point in joined.ours] == [0.5, 1.0, 2.0]
    assert joined.best_theirs.factor == 1.0
    assert joined.differences == pytest.approx((-0.02, -0.03))


def test_a_program_leaves_its_own_rates_only_for_clearly_better_ones_the_baseline_for_any() -> None:
    def side(*gains: float) -> tuple[RatePoint, ...]:
        own = RatePoint(factor=1.0, source="own", runs=(trained(2.0), trained(2.0)))
        runs = tuple(trained(2.0 + gain) for gain in gains)
        return own, RatePoint(factor=2.0, source="other", runs=runs)

    unclear, clear = side(-0.03, 0.02), side(-0.03, -0.02)

    by_luck, surely = Rates(ours=unclear, theirs=unclear), Rates(ours=clear, theirs=clear)
    assert (by_luck.best_ours.factor, surely.best_ours.factor) == (1.0, 2.0)
    assert (by_luck.best_theirs.factor, surely.best_theirs.factor) == (2.0, 2.0)
    assert by_luck.own_theirs.factor == 1.0


def test_the_harder_of_two_sealed_comparisons_counts() -> None:
    sealed = PLAN.conditions[0]
    easy, hard = found_on(sealed), found_on(sealed, [-0.02, 0.01, -0.01, 0.02, -0.01, 0.0])
    unfinished = found_on(sealed, [-0.02, -0.021])

    for first, own, harder in ((easy, hard, hard), (hard, easy, hard), (easy, unfinished, None)):
        found = Findings(plan=PLAN, tested=(first,), at_own_rates=own).sealed
        assert found is (own if harder is None else harder)
