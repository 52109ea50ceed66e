from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from agent.calibration.noise import Draws
from agent.calibration.rules import (
    best_ever,
    fixed_seeds,
    sequential,
    single_run,
    unpaired_fixed,
)
from agent.statistics.paired_test import DecisionKind, Design, decide


def trials(differences: list[list[float]]) -> Draws:
    found = np.array(differences)
    return Draws(candidate=found, reference=np.zeros_like(found))


@given(
    seed=st.integers(0, 10_000),
    mean_sd=st.floats(-2.0, 1.0),
    design=st.sampled_from(
        [Design(), Design(max_pairs=8, least_chance=0.0), Design(alpha=0.2, smallest_gain_bpb=0.0)]
    ),
)
def test_many_trials_at_once_end_like_each_of_them_alone(
    seed: int, mean_sd: float, design: Design
) -> None:
    rng = np.random.default_rng(seed)
    differences = rng.normal(mean_sd * 0.003, 0.003, (5, design.max_pairs))
    differences[0] = np.round(differences[0], 2)  # with equal ones among them
    differences[1] = differences[1] / 100.0 - 0.0002  # real, and too small to matter

    outcome = sequential(design).decide(trials(differences.tolist()), np.zeros(5))

    for number, trial in enumerate(differences):
        looks = (decide(list(trial[:n]), design) for n in range(1, design.max_pairs + 1))
        last = next(look for look in looks if look.kind is not DecisionKind.CONTINUE)
        assert outcome.accepted[number] == (last.kind is DecisionKind.ACCEPT)
        assert outcome.candidate_runs[number] == last.effect.pairs
        assert outcome.champion_runs[number] == last.effect.pairs
        assert outcome.measured[number] == pytest.approx(last.effect.mean, abs=1e-12)


def test_the_greedy_rule_compares_one_run_with_the_record_and_replaces_it() -> None:
    outcome = best_ever().decide(trials([[2.0], [1.8], [2.2]]), np.array([2.1, 1.9, 2.1]))

    assert outcome.accepted.tolist() == [True, True, False]
    assert outcome.on_record.tolist() == [2.0, 1.8, 2.2]
    assert outcome.measured == pytest.approx([-0.1, -0.1, 0.1])
    assert (outcome.candidate_runs.tolist(), outcome.champion_runs.tolist()) == ([1] * 3, [0] * 3)


def test_the_threshold_rule_wants_a_margin() -> None:
    outcome = single_run(0.005).decide(trials([[-0.004], [-0.006]]), np.zeros(2))

    assert outcome.accepted.tolist() == [False, True]


def test_the_majority_rule_counts_wins_and_not_sizes() -> None:
    found = trials([[-0.001, -0.001, 0.5], [0.001, 0.001, -0.5]])

    outcome = fixed_seeds(seeds=3, wins=2).decide(found, np.zeros(2))

    assert outcome.accepted.tolist() == [True, False]
    assert outcome.candidate_runs.tolist() == [3, 3]


def test_the_textbook_rule_is_the_two_sample_t_test_on_other_seeds() -> None:
    rng = np.random.default_rng(21)
    draws = Draws(
        candidate=rng.normal(-0.5, 1.0, (300, 24)), reference=rng.normal(0.0, 1.0, (300, 24))
    )

    outcome = unpaired_fixed(12, 0.05).decide(draws, np.zeros(300))

    p = stats.ttest_ind(
        draws.candidate[:, :12], draws.reference[:, 12:], axis=1, alternative="less"
    ).pvalue
    assert (outcome.accepted == (p < 0.05)).all()
    assert (outcome.candidate_runs + outcome.champion_runs == 24).all()
