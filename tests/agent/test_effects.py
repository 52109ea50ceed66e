from __future__ import annotations

import math

import pytest
from scipy import stats

from agent.effects import paired_effect, single_pair


def test_the_interval_is_student_t_at_its_confidence() -> None:
    differences = [-0.01, -0.03, 0.01, -0.02]
    error = stats.sem(differences)
    low, high = stats.t.interval(0.95, 3, loc=-0.0125, scale=error)

    effect = paired_effect(differences)

    assert effect.pairs == 4
    assert [effect.mean, effect.low, effect.high] == pytest.approx([-0.0125, low, high])


def test_equal_differences_leave_an_interval_of_zero_width() -> None:
    effect = paired_effect([-0.01, -0.01])

    assert effect.low == effect.mean == effect.high == -0.01


def test_one_pair_leaves_the_interval_unbounded() -> None:
    effect = single_pair(-0.02)

    assert (effect.mean, effect.low, effect.high) == (-0.02, -math.inf, math.inf)


def test_an_interval_from_one_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="two pairs"):
        paired_effect([-0.02])
