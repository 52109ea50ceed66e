"""How much of the machine a training run may use, relative to the optimizer it is compared with."""

from __future__ import annotations

from sandbox.jobs import Limits

__all__ = ["FIRST_LIMITS", "limits_relative_to"]

# The first runs of a baseline have nothing to be compared with.
FIRST_LIMITS = Limits(cpu_s=3600.0, wall_s=36_000.0)

_CPU_ALLOWANCE = 3.0  # times the baseline's own CPU time
_WALL_ALLOWANCE = 10.0  # wall time on shared cores varied up to 11 times for the same work
_CPU_START_S = 2.0  # building the optimizer and its first step: .1 to .3 s, more on a slow core
_WALL_START_S = 60.0


def limits_relative_to(baseline_cpu_s: float, baseline_wall_s: float) -> Limits:
    """Return the limits of a run whose baseline took so much for the same number of steps.

    Args:
        baseline_cpu_s: CPU seconds of the baseline's jail.
        baseline_wall_s: seconds from the beginning to the end of its run.
    """
    return Limits(
        cpu_s=_CPU_START_S + _CPU_ALLOWANCE * baseline_cpu_s,
        wall_s=_WALL_START_S + _WALL_ALLOWANCE * baseline_wall_s,
    )
