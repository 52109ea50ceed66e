from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from agent.calibration.noise import Noise, draw, noises_of
from tests.agent.calibration.pools import made_up


def skewed(seeds: int = 50) -> Noise:
    """Return noise whose differences lean to one side and follow the reference."""
    rng = np.random.default_rng(11)
    difference = rng.gamma(2.0, 0.003, seeds)
    reference = rng.normal(0.0, 0.01, seeds) + difference
    return Noise(
        name="skewed",
        reference=reference - reference.mean(),
        difference=difference - difference.mean(),
    )


def test_planted_effects_are_the_means_of_what_is_drawn() -> None:
    rng = np.random.default_rng(12)
    effects = np.repeat([-0.01, 0.0, 0.02], 2_000)

    draws = draw([skewed()], effects, 20, rng)

    means = draws.differences.mean(axis=1).reshape(3, -1).mean(axis=1)
    assert means == pytest.approx([-0.01, 0.0, 0.02], abs=1e-4)  # five standard errors
    assert draws.reference.mean() == pytest.approx(0.0, abs=2e-4)


def test_drawn_noise_has_the_unbiased_spread_of_its_comparison() -> None:
    noise = skewed()

    draws = draw([noise], np.zeros(10_000), 20, np.random.default_rng(13))

    # Three standard errors; without the correction it would be 2 % off.
    assert draws.differences.std() == pytest.approx(noise.paired_sd, rel=0.008)
    candidate, reference = draws.candidate, np.roll(draws.reference, 1, axis=0)
    assert (candidate - reference).std() == pytest.approx(noise.unpaired_sd, rel=0.02)


def test_skewness_and_what_differences_owe_to_the_reference_survive() -> None:
    noise = skewed()

    draws = draw([noise], np.zeros(5_000), 20, np.random.default_rng(14))

    drawn = stats.skew(draws.differences.ravel())
    assert drawn == pytest.approx(stats.skew(noise.difference) / 1.0625**1.5, rel=0.05)
    real = np.corrcoef(noise.reference, noise.difference)[0, 1]
    found = np.corrcoef(draws.reference.ravel(), draws.differences.ravel())[0, 1]
    assert found == pytest.approx(real / 1.0625, abs=0.02)


def test_no_two_draws_are_equal() -> None:
    draws = draw([skewed(8)], np.zeros(50), 40, np.random.default_rng(15))

    assert len(np.unique(draws.differences)) == draws.differences.size


def test_every_comparison_lends_its_noise_as_often_as_any_other() -> None:
    quiet, loud = skewed().at_sd(0.001), skewed().at_sd(0.1)

    draws = draw([quiet, loud], np.zeros(4_000), 20, np.random.default_rng(16))

    share = (draws.differences.std(axis=1) > 0.01).mean()
    assert share == pytest.approx(0.5, abs=0.04)  # five standard errors


def test_scaling_changes_the_differences_and_leaves_the_reference_alone() -> None:
    noise = skewed()

    scaled = noise.at_sd(0.02)

    assert scaled.paired_sd == pytest.approx(0.02)
    assert scaled.reference is noise.reference


def test_the_noise_of_a_pool_is_centred() -> None:
    noises = noises_of(made_up())

    assert len(noises) == 3
    for noise in noises:
        assert noise.reference.mean() == pytest.approx(0.0, abs=1e-12)
        assert noise.difference.mean() == pytest.approx(0.0, abs=1e-12)
    assert noises[2].paired_sd == pytest.approx(0.005, rel=0.35)
