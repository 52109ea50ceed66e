from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from agent.statistics.shrinkage import Measured, Prior, fit_prior, shrink

PRIOR = Prior(ends=(-0.01, 0.0, 0.02), weights=(0.2, 0.5, 0.3))


def by_the_grid(measured: Measured, prior: Prior) -> tuple[float, float]:
    """Return posterior mean and chance of a gain by summing over a fine grid of true effects."""
    mass = mean = gain = 0.0
    for end, weight in zip(prior.ends, prior.weights, strict=True):
        effects = np.linspace(min(0.0, end), max(0.0, end), 20_001) if end else np.zeros(1)
        likelihood = weight * stats.norm.pdf(measured.mean, effects, measured.error) / len(effects)
        mass += float(likelihood.sum())
        mean += float((likelihood * effects).sum())
        gain += float(likelihood.sum()) if end < 0.0 else 0.0
    return mean / mass, gain / mass


@pytest.mark.parametrize("mean", [-0.02, -0.006, -0.001, 0.0, 0.004, 0.03])
def test_the_posterior_is_that_of_a_fine_grid(mean: float) -> None:
    measured = Measured(mean=mean, error=0.003)

    found = shrink(measured, PRIOR)

    expected_mean, expected_gain = by_the_grid(measured, PRIOR)
    assert found.mean == pytest.approx(expected_mean, rel=1e-3, abs=1e-7)
    assert found.chance_better == pytest.approx(expected_gain, rel=1e-3)


def test_the_interval_holds_its_share_of_the_posterior() -> None:
    measured = Measured(mean=-0.004, error=0.002)
    found = shrink(measured, Prior(ends=(-0.01,), weights=(1.0,)), confidence=0.8)

    posterior = stats.truncnorm(-0.006 / 0.002, 0.004 / 0.002, loc=-0.004, scale=0.002)
    assert found.low == pytest.approx(posterior.ppf(0.1), abs=1e-8)
    assert found.high == pytest.approx(posterior.ppf(0.9), abs=1e-8)


def test_the_best_of_candidates_without_any_effect_is_shrunk_to_nearly_nothing() -> None:
    rng = np.random.default_rng(51)
    candidates = [Measured(mean=x, error=0.003) for x in rng.normal(0.0, 0.003, 100)]

    best = min(candidates, key=lambda candidate: candidate.mean)
    found = shrink(best, fit_prior(candidates))

    assert best.mean < -0.006
    assert -0.001 < found.mean <= 0.0
    assert found.chance_better < 0.5


def test_a_gain_far_beyond_its_error_is_kept() -> None:
    rng = np.random.default_rng(52)
    candidates = [Measured(mean=x, error=0.001) for x in rng.normal(0.0, 0.001, 50)]
    winner = Measured(mean=-0.02, error=0.001)

    found = shrink(winner, fit_prior([*candidates, winner]))

    assert found.mean == pytest.approx(-0.02, abs=0.0005)
    assert found.chance_better > 0.999


def test_where_no_gain_was_seen_one_is_still_thought_possible() -> None:
    harmful = [Measured(mean=0.01 + i * 1e-4, error=0.001) for i in range(40)]
    found = shrink(Measured(mean=-0.002, error=0.001), fit_prior(harmful))

    assert 0.01 < found.chance_better < 0.9


def test_selected_effects_are_right_on_average_after_shrinking() -> None:
    # 40 runs of 100 candidates, most without a gain; the winners are those 2 errors ahead.
    rng = np.random.default_rng(53)
    raw, shrunken, true = [], [], []
    for _ in range(40):
        effects = np.where(rng.random(100) < 0.8, np.abs(rng.normal(0, 0.004, 100)), 0.0)
        effects[:10] = -np.abs(rng.normal(0.0, 0.004, 10))
        means = rng.normal(effects, 0.002)
        prior = fit_prior([Measured(mean=mean, error=0.002) for mean in means])
        for i in np.flatnonzero(means < -0.004):
            true.append(effects[i])
            raw.append(means[i])
            shrunken.append(shrink(Measured(mean=means[i], error=0.002), prior).mean)

    curse = np.mean(true) - np.mean(raw)
    left = abs(np.mean(true) - np.mean(shrunken))

    assert curse > 0.0008
    # What is left is within three of its standard errors, .0012 / sqrt(winners), or a third.
    assert left < curse / 3.0


def test_effects_and_weights_do_not_depend_on_the_order_of_the_candidates() -> None:
    rng = np.random.default_rng(54)
    candidates = [Measured(mean=x, error=0.002) for x in rng.normal(0.001, 0.004, 30)]

    forward, backward = fit_prior(candidates), fit_prior(candidates[::-1])

    assert forward.ends == backward.ends
    assert forward.weights == pytest.approx(backward.weights, abs=1e-9)
    assert sum(forward.weights) == pytest.approx(1.0)


def test_no_candidate_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="no candidate"):
        fit_prior([])


@pytest.mark.parametrize(("mean", "error"), [(float("nan"), 1.0), (0.0, 0.0), (0.0, float("inf"))])
def test_an_effect_without_a_usable_error_is_refused(mean: float, error: float) -> None:
    with pytest.raises(ValueError, match="standard error"):
        Measured(mean=mean, error=error)
