from __future__ import annotations

import numpy as np

from agent.calibration.claims import false_claims, is_claimed
from agent.calibration.noise import noises_of
from agent.statistics.multiplicity import claim
from tests.agent.calibration.pools import made_up


def test_many_runs_at_once_are_claimed_like_one() -> None:
    differences = np.random.default_rng(1).normal(-0.002, 0.004, (200, 20))

    for number in (1, 2, 5):
        together = is_claimed(differences, number)

        assert together.any()
        assert not together.all()
        one_by_one = [claim(row.tolist(), number=number).holds for row in differences]
        assert together.tolist() == one_by_one


def test_a_run_that_keeps_confirming_stays_within_one_in_a_hundred() -> None:
    noises = noises_of(made_up(seeds=400))
    rng = np.random.default_rng(2)

    once = false_claims(noises, confirmations=1, runs=20_000, rng=rng)
    often = false_claims(noises, confirmations=8, runs=20_000, rng=rng)

    # The first confirmation may spend .005 and eight of them .0089; .0115 is four standard
    # errors above that, which a right test exceeds once in thirty thousand seeds.
    assert 0.003 < once.share < 0.007
    assert once.share < often.share < 0.0115
    assert often.trials == 20_000
