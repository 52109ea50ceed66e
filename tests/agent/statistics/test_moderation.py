from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from agent.statistics.moderation import measure, usual_spread


def test_the_usual_spread_and_its_weight_are_found_again() -> None:
    rng = np.random.default_rng(61)
    variances = 0.003**2 * 6.0 / rng.chisquare(6, 4000)
    candidates = [list(rng.normal(0.0, math.sqrt(variance), 5)) for variance in variances]

    found = usual_spread(candidates)

    assert found.variance == pytest.approx(0.003**2, rel=0.05)  # 3 standard errors
    assert found.freedom == pytest.approx(6.0, rel=0.2)


def test_two_nearly_equal_differences_are_not_taken_for_certainty() -> None:
    rng = np.random.default_rng(62)
    others = [list(rng.normal(0.0, 0.003, 6)) for _ in range(30)]

    lucky = measure([*others, [-0.009, -0.0090001]])[-1]

    assert lucky.mean == pytest.approx(-0.00900005)
    assert lucky.error > 0.001


def test_candidates_of_one_spread_share_it() -> None:
    rng = np.random.default_rng(63)
    candidates = [list(rng.normal(0.0, 0.003, 4)) for _ in range(60)]

    errors = [one.error for one in measure(candidates)]

    assert max(errors) / min(errors) < 1.6  # the raw ones differ by a factor of 9
    assert np.mean(errors) == pytest.approx(0.003 / 2.0, rel=0.15)


def test_a_candidate_alone_keeps_the_interval_of_its_own_t_test() -> None:
    differences = [-0.003, -0.001, -0.004, -0.002, -0.0035]

    (found,) = measure([differences])

    half = stats.ttest_1samp(differences, 0.0).confidence_interval(0.9)
    assert 1.6448536 * found.error == pytest.approx((half.high - half.low) / 2.0, rel=1e-2)


def test_differences_that_are_all_the_same_get_a_usable_error() -> None:
    found = measure([[-0.001, -0.001, -0.001], [0.002, 0.004], [0.0, 0.003], [0.001, -0.002]])

    assert 0.0 < found[0].error < 0.01


@pytest.mark.parametrize("bad", [[0.001], [0.001, math.nan]])
def test_a_candidate_that_has_no_spread_to_estimate_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="two or more differences, all of them finite"):
        measure([[0.001, 0.002], bad])


def test_candidates_without_any_noise_are_refused() -> None:
    with pytest.raises(ValueError, match="vary"):
        measure([[0.001, 0.001], [0.0, 0.0]])
