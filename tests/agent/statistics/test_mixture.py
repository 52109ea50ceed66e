from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from agent.statistics.mixture import critical_t, log_e_values, self_normalised

Array = NDArray[np.float64]

SMALL = st.floats(-1.0, 1.0).map(lambda x: round(x, 4))


def log_e(y: float, pairs: int, prior_sd: float = 1.0) -> float:
    return float(log_e_values(np.array(y), np.array(float(pairs)), prior_sd=prior_sd))


def integrated_e(t: float, pairs: int, prior_sd: float) -> float:
    """Average the likelihood ratio of the t-statistic over the half-normal prior, numerically."""
    gains = np.linspace(-9.0 * prior_sd, 0.0, 6001)
    prior = 2.0 * stats.norm.pdf(gains, scale=prior_sd)
    ratio = stats.nct.pdf(t, pairs - 1, gains * math.sqrt(pairs)) / stats.t.pdf(t, pairs - 1)
    return float(np.trapezoid(prior * ratio, gains))


@pytest.mark.parametrize(
    ("t", "pairs", "prior_sd"),
    [(-2.0, 5, 1.0), (1.0, 8, 0.5), (-4.0, 12, 2.0), (0.0, 3, 1.0), (-3.1, 24, 1.0)],
)
def test_the_closed_form_is_the_integral_over_noncentral_t(
    t: float, pairs: int, prior_sd: float
) -> None:
    y = t / math.sqrt(t * t + pairs - 1)

    assert math.exp(log_e(y, pairs, prior_sd)) == pytest.approx(
        integrated_e(t, pairs, prior_sd), rel=1e-4
    )


def test_the_critical_value_has_the_wanted_e_value_by_the_integral() -> None:
    b = critical_t(9, 0.05, prior_sd=1.0)

    assert integrated_e(-b, 9, 1.0) == pytest.approx(20.0, rel=1e-4)


def test_fewer_pairs_than_four_cannot_reach_five_percent() -> None:
    assert [math.isinf(critical_t(n, 0.05, prior_sd=1.0)) for n in (1, 2, 3, 4)] == [
        *(True, True, True),
        False,
    ]


@given(first=st.floats(-1.0, 1.0), second=st.floats(-1.0, 1.0), pairs=st.integers(2, 40))
def test_evidence_never_falls_when_the_candidate_looks_better(
    first: float, second: float, pairs: int
) -> None:
    better, worse = sorted((first, second))

    assert log_e(better, pairs) >= log_e(worse, pairs)


@given(differences=st.lists(SMALL, min_size=2, max_size=12), scale=st.floats(1e-3, 1e3))
def test_the_unit_of_the_differences_does_not_matter(
    differences: list[float], scale: float
) -> None:
    found = np.array(differences)

    assert self_normalised(found * scale) == pytest.approx(self_normalised(found), abs=1e-9)


def test_the_self_normalised_sum_stands_for_the_t_statistic() -> None:
    found = np.array([0.3, -0.1, 0.4, 0.2, -0.2])

    y = self_normalised(found)[-1]

    expected = stats.ttest_1samp(found, 0.0).statistic
    assert y * math.sqrt(4.0 / (1.0 - y * y)) == pytest.approx(expected)


def test_differences_that_are_all_zero_are_evidence_against_a_gain() -> None:
    assert log_e(float(self_normalised(np.zeros(6))[-1]), 6) < 0.0


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_the_evidence_for_a_candidate_without_gain_rarely_ever_reaches_one_over_alpha(
    alpha: float,
) -> None:
    trials = 20_000
    differences = np.random.default_rng(41).standard_normal((trials, 60))

    logs = log_e_values(self_normalised(differences), np.arange(1.0, 61.0), prior_sd=1.0)
    false_alarms = int((logs >= -math.log(alpha)).any(axis=1).sum())

    # The upper 1e-4 quantile of what alpha gives: the false-alarm rate of this test, at most.
    assert false_alarms <= stats.binom.isf(1e-4, trials, alpha)
    # It is a bound worth having: a tenth of alpha would promise too much.
    assert false_alarms > 0.1 * alpha * trials


def test_each_end_of_the_confidence_sequence_is_rarely_ever_wrong() -> None:
    trials, pairs, mean = 5_000, 40, -0.4
    differences = np.random.default_rng(42).normal(mean, 1.0, (trials, pairs))
    counts = np.arange(1, pairs + 1)
    means = np.cumsum(differences, axis=1) / counts
    sds = np.array([differences[:, :n].std(axis=1, ddof=1) for n in counts[1:]]).T
    critical = np.array([critical_t(int(n), 0.05, prior_sd=1.0) for n in counts[1:]])
    half = critical * sds / np.sqrt(counts[1:])

    above = ((means[:, 1:] + half) < mean).any(axis=1).sum()
    below = ((means[:, 1:] - half) > mean).any(axis=1).sum()

    allowed = stats.binom.isf(1e-4, trials, 0.05)  # false-alarm rate 1e-4 for each end
    assert above <= allowed
    assert below <= allowed
