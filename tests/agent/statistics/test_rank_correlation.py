from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from agent.statistics.rank_correlation import (
    RankCorrelation,
    TooFewProgramsError,
    may_prune,
    rank_correlation,
)

PAIRS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=6, max_size=20)


@given(pairs=PAIRS)
def test_the_value_is_spearmans_with_ties_at_their_mean_rank(pairs: list[tuple[int, int]]) -> None:
    cheap, dear = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    if len(set(cheap)) == 1 or len(set(dear)) == 1:
        return  # undefined there

    found = rank_correlation(cheap, dear)

    assert found.value == pytest.approx(stats.spearmanr(cheap, dear).statistic, abs=1e-12)
    assert -1.0 <= found.low <= found.value <= found.high <= 1.0


@given(pairs=PAIRS)
def test_only_the_order_of_the_scores_matters(pairs: list[tuple[int, int]]) -> None:
    cheap, dear = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]

    assert rank_correlation(cheap, dear) == rank_correlation([math.exp(a) for a in cheap], dear)


@pytest.mark.parametrize("programs", [12, 30])
def test_the_interval_covers_the_true_coefficient_about_as_often_as_it_says(programs: int) -> None:
    rho, trials = 0.7, 1_000
    true = 6.0 / math.pi * math.asin(rho / 2.0)  # Spearman's of a bivariate normal
    rng = np.random.default_rng(91)

    covered = 0
    for _ in range(trials):
        cheap = rng.standard_normal(programs)
        dear = rho * cheap + math.sqrt(1.0 - rho**2) * rng.standard_normal(programs)
        found = rank_correlation(cheap.tolist(), dear.tolist())
        covered += found.low <= true <= found.high

    # Nominal 90 %; 87 % is three standard errors below.
    assert covered / trials > 0.87


def test_two_stages_that_agree_on_six_programs_are_not_known_to_agree_on_all() -> None:
    found = rank_correlation([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6])

    assert found.value == pytest.approx(1.0)
    assert 0.3 < found.low < 0.99


def test_a_stage_in_which_all_programs_score_alike_predicts_nothing() -> None:
    found = rank_correlation([1.0] * 8, [float(i) for i in range(8)])

    assert (found.value, found.low, found.high) == (0.0, -1.0, 1.0)
    assert not may_prune(found)


def test_a_stage_may_prune_only_once_it_has_shown_that_it_predicts() -> None:
    sure = RankCorrelation(value=0.8, low=0.5, high=0.9, programs=20)
    vague = RankCorrelation(value=0.8, low=0.1, high=0.95, programs=6)

    assert may_prune(sure, threshold=0.3)
    assert not may_prune(vague, threshold=0.3)
    assert not may_prune(None, threshold=0.3)


def test_too_few_programs_are_refused_with_their_number() -> None:
    with pytest.raises(TooFewProgramsError) as caught:
        rank_correlation([1.0] * 5, [2.0] * 5)

    assert caught.value.found == 5


def test_scores_of_different_programs_are_refused() -> None:
    with pytest.raises(ValueError, match="one score per stage"):
        rank_correlation([1.0] * 7, [1.0] * 8)


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        rank_correlation([1.0] * 7, [math.inf] * 7)
