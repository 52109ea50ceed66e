from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from agent.statistics.mixture import log_e_values, self_normalised
from agent.statistics.multiplicity import claim, claim_level, e_bh, e_lond, paired_p_value

EVIDENCE = st.lists(st.floats(-5.0, 12.0), max_size=30)


def test_e_bh_finds_the_largest_list_that_its_e_values_pay_for() -> None:
    # Of four at .05, rank k must reach 80 / k: 80, 40, 26.7, 20.
    e_values = [30.0, 45.0, 2.0, 70.0]

    assert e_bh([math.log(e) for e in e_values]) == (True, True, False, True)
    assert e_bh([math.log(e) for e in (26.0, 45.0, 2.0, 70.0)]) == (False, True, False, True)
    assert e_bh([math.log(e) for e in (26.0, 39.0, 2.0, 70.0)]) == (False, False, False, False)


def test_e_lond_raises_its_level_with_every_discovery() -> None:
    # Levels of the first three: .05 / 2, then (.05 * 2) / 6 after a discovery or .05 / 6.
    assert e_lond([math.log(41.0), math.log(61.0)]) == (True, True)
    assert e_lond([math.log(39.0), math.log(61.0)]) == (False, False)
    assert e_lond([math.log(39.0), math.log(121.0)]) == (False, True)


@given(first=EVIDENCE, later=EVIDENCE)
def test_what_comes_later_changes_no_earlier_online_decision(
    first: list[float], later: list[float]
) -> None:
    assert e_lond(first + later)[: len(first)] == e_lond(first)


def test_false_discoveries_stay_rare_when_all_candidates_share_their_incumbents_runs() -> None:
    # 400 runs of 40 candidates, 8 with a gain; the incumbent's noise is common to all of a run,
    # which takes its differences far from independence.
    rng = np.random.default_rng(71)
    gains = np.where(np.arange(40) < 8, -1.5, 0.0)
    shares, found = [], 0
    for _ in range(400):
        common = rng.standard_normal(24) * math.sqrt(0.5)
        own = rng.standard_normal((40, 24)) * math.sqrt(0.5)
        y = self_normalised(gains[:, None] + own - common)[:, -1]
        logs = log_e_values(y, np.array(24.0), prior_sd=1.0).tolist()
        discoveries = np.array(e_bh(logs))
        shares.append(discoveries[8:].sum() / max(1, discoveries.sum()))
        found += int(discoveries[:8].sum())

    # Four standard errors above the nominal rate: a false-alarm rate below 1e-4.
    assert np.mean(shares) <= 0.05 + 4.0 * np.std(shares) / math.sqrt(len(shares))
    assert found / (8 * 400) > 0.8


def test_all_confirmations_that_could_ever_follow_spend_no_more_than_the_runs_error() -> None:
    spent = math.fsum(claim_level(number, alpha=0.01) for number in range(1, 10_001))

    assert 0.00999 < spent < 0.01


def test_a_run_without_gains_makes_a_false_claim_at_most_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(72)
    runs = 3_000

    false = sum(
        any(claim(list(rng.normal(0.0, 0.005, 20)), number=k).holds for k in (1, 2, 3))
        for _ in range(runs)
    )

    assert false <= stats.binom.isf(1e-4, runs, 0.01)  # false-alarm rate 1e-4


def test_a_gain_of_one_paired_sd_is_claimed_at_the_first_confirmation() -> None:
    rng = np.random.default_rng(73)

    held = sum(claim(list(rng.normal(-0.005, 0.005, 20)), number=1).holds for _ in range(200))

    assert held > 180  # 0.95 by a larger simulation, eight standard errors above


def test_a_later_confirmation_needs_more_evidence() -> None:
    p = paired_p_value(differences := [-0.004, -0.002, -0.003, -0.001, -0.005, -0.0013])

    assert claim_level(3) < p < claim_level(1)
    assert claim(differences, number=1).holds
    assert not claim(differences, number=3).holds


@given(
    differences=st.lists(
        st.floats(-1.0, 1.0).map(lambda x: round(x, 4)), min_size=2, max_size=9, unique=True
    )
)
def test_the_p_value_is_that_of_the_one_sided_paired_t_test(differences: list[float]) -> None:
    expected = stats.ttest_1samp(differences, 0.0, alternative="less").pvalue

    assert paired_p_value(differences) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("value", "p"), [(-0.001, 0.0), (0.0, 1.0), (0.001, 1.0)])
def test_equal_differences_leave_no_doubt(value: float, p: float) -> None:
    assert paired_p_value([value] * 5) == p


@pytest.mark.parametrize("bad", [[], [0.1], [0.1, math.nan]])
def test_a_p_value_of_too_little_or_no_number_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match=r"paired test needs|finite"):
        paired_p_value(bad)


def test_confirmations_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="from 1"):
        claim_level(0)
