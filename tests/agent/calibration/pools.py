"""Pools of made-up noise for tests."""

from __future__ import annotations

import numpy as np

from agent.calibration.pool import Comparison, Pool


def made_up(*, comparisons: int = 3, seeds: int = 40, paired_sd: float = 0.005) -> Pool:
    """Make normal comparisons with a seed noise of .012 and effects of no importance."""
    rng = np.random.default_rng(5)
    found = []
    for number in range(comparisons):
        reference = rng.normal(2.1, 0.012, seeds)
        candidate = reference + rng.normal(0.001 * number, paired_sd, seeds)
        found.append(
            Comparison(
                name=f"change {number}",
                seeds=tuple(range(seeds)),
                candidate=tuple(candidate.tolist()),
                reference=tuple(reference.tolist()),
            )
        )
    return Pool(origin="made up", simulated=True, cpu_s_per_run=9.0, comparisons=tuple(found))
