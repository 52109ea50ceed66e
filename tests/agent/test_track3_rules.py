from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.track3.rules import Result, Significance, better, on_target, p_spread

LOSSES = st.lists(st.integers(327_000, 329_000), min_size=1, max_size=40)


def result(*losses: float, step: int = 3000) -> Result:
    return Result(step=step, losses=losses)


@pytest.mark.parametrize(
    ("losses", "passes"),
    [
        ((3.276,), True),
        ((3.27601,), False),
        ((3.278,) * 4, True),
        ((3.278, 3.278, 3.278, 3.27801), False),
        ((3.279,) * 16, True),
        ((3.2786,) * 9, True),
        ((3.28001,), False),
        ((3.29,) * 9, False),
    ],
)
def test_a_mean_exactly_on_the_threshold_passes_and_one_beyond_it_does_not(
    losses: tuple[float, ...], passes: bool
) -> None:
    assert on_target(result(*losses)).passes is passes


def test_the_statistic_is_the_one_of_the_benchmark() -> None:
    published = (3.27793, 3.27981, 3.27761, 3.27838, 3.27785, 3.27783, 3.27877, 3.27684)

    target = on_target(result(*published))

    assert target.statistic == pytest.approx(0.00529623, abs=1e-8)
    assert target.margin == pytest.approx(0.00129623, abs=1e-8)


@given(losses=LOSSES)
def test_far_from_the_threshold_exact_and_rounded_arithmetic_agree(losses: list[int]) -> None:
    nats = tuple(loss / 100_000 for loss in losses)
    statistic = (3.28 - math.fsum(nats) / len(nats)) * math.sqrt(len(nats))

    target = on_target(result(*nats))

    assert target.statistic == pytest.approx(statistic, abs=1e-9)
    if abs(statistic - 0.004) > 1e-9:
        assert target.passes is (statistic > 0.004)


@pytest.mark.parametrize(
    ("mine", "other", "statistic", "passes"),
    [
        ((3.2785, 10, 3210), (3.2785, 16, 3225), 0.00167, False),
        ((3.2785, 10, 3210), (3.2778, 16, 3250), 0.0027, False),
        ((3.2790, 20, 3325), (3.2788, 20, 3375), 0.00648, True),
    ],
)
def test_the_published_examples_of_the_pairwise_rule_come_out_the_same(
    mine: tuple[float, int, int], other: tuple[float, int, int], statistic: float, passes: bool
) -> None:
    first, second = (result(*([mean] * n), step=step) for mean, n, step in (mine, other))

    significance = better(first, second)

    assert significance.statistic == pytest.approx(statistic, abs=5e-5)
    assert significance.passes is passes


@given(mine=LOSSES, other=LOSSES, steps=st.integers(-500, 500))
def test_two_submissions_are_never_each_better_than_the_other(
    mine: list[int], other: list[int], steps: int
) -> None:
    first = result(*(loss / 100_000 for loss in mine), step=3000)
    second = result(*(loss / 100_000 for loss in other), step=3000 + steps)

    forth, back = better(first, second), better(second, first)

    assert forth.statistic == pytest.approx(-back.statistic)
    assert not (forth.passes and back.passes)


def test_fewer_steps_at_the_same_loss_are_worth_45_ten_thousandths_per_hundred() -> None:
    at_3000, at_3100 = result(3.278, step=3000), result(3.278, step=3100)

    significance = better(at_3000, at_3100)

    assert significance == Significance(statistic=0.0045 / math.sqrt(2), passes=False)


def test_mean_and_deviation_are_those_of_the_printed_losses() -> None:
    assert result(3.27771, 3.27644).mean == Fraction("3.277075")
    assert result(3.27771, 3.27644).sd == pytest.approx(0.00127 / math.sqrt(2))
    assert result(3.27771).sd is None


def test_the_spread_is_judged_by_the_chi_square_test_of_a_variance() -> None:
    three = result(3.277, 3.278, 3.279)

    # With two degrees of freedom the tail is exp(-x/2), here of 2·(.001/.0013)².
    assert p_spread(three) == pytest.approx(math.exp(-((0.001 / 0.0013) ** 2)))
    assert p_spread(result(3.277)) == 1.0
