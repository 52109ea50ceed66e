from __future__ import annotations

from sandbox.allowance import FIRST_LIMITS, limits_relative_to


def test_limits_grow_with_the_baseline_from_a_start_that_suits_a_slow_core() -> None:
    limits = limits_relative_to(2.0, 3.0)

    assert (limits.cpu_s, limits.wall_s) == (2.0 + 3 * 2.0, 60.0 + 10 * 3.0)


def test_a_baseline_itself_is_hardly_limited() -> None:
    assert FIRST_LIMITS.cpu_s >= 3600
    assert FIRST_LIMITS.wall_s >= 10 * FIRST_LIMITS.cpu_s
