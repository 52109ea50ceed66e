"""Limits on what a better score may cost: constraints, not weights.

A candidate within them is judged by its score alone; one outside is refused however good it is.
State bytes are no limit here, since a run does not report them: the jail's peak memory, with
torch in it, is what is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

__all__ = ["Guardrails", "GuardrailsError", "Spent", "breach", "cpu_ratio"]


class GuardrailsError(ValueError):
    """A limit was asked for that nothing could keep; the message says what to write instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guardrails:
    """What a candidate may cost at most.

    Attributes:
        max_cpu_ratio: CPU time of its optimizer in units of the seed program's, the median over
            seeds. A jail stops at three times, so more cannot be allowed.
        max_memory_ratio: peak memory of its jail in units of the seed program's.
        max_setback_bpb: how far behind it may be on any one seed. A test of the mean cannot see a
            rare disaster: of 54 real comparisons three were a little ahead on seven seeds of eight
            and .08 behind on the other. .05 is four of the largest paired standard deviations of
            an honest edit (.0125).

    Raises:
        GuardrailsError: a ratio below 1, or a setback that is not positive.
    """

    max_cpu_ratio: float = 2.0
    max_memory_ratio: float = 1.5
    max_setback_bpb: float = 0.05

    def __post_init__(self) -> None:
        if not (1.0 <= self.max_cpu_ratio < math.inf and 1.0 <= self.max_memory_ratio < math.inf):
            raise GuardrailsError(
                "the seed program itself has ratios of 1, so less cannot be asked for: found "
                f"{self.max_cpu_ratio:g} for CPU time and {self.max_memory_ratio:g} for memory"
            )
        if not 0.0 < self.max_setback_bpb < math.inf:
            raise GuardrailsError(f"a setback must be positive, found {self.max_setback_bpb:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What one finished run of a program cost."""

    jail_cpu_s: float
    peak_memory_bytes: int


def breach(
    limits: Guardrails,
    *,
    setbacks: Sequence[float] = (),
    ours: Sequence[Spent] = (),
    baseline: Sequence[Spent] = (),
) -> str | None:
    """Return which limit a candidate breaks and by how much, if it breaks any.

    Args:
        limits: what is allowed.
        setbacks: candidate minus incumbent on every seed, in bits per byte.
        ours: what its runs cost.
        baseline: what the seed program's cost on the same seeds, in the same order.
    """
    worst = max(setbacks, default=0.0)
    if worst > limits.max_setback_bpb:
        return (
            f"guardrail: {worst:+.4f} bpb behind on one seed of {len(setbacks)}, at most "
            f"{limits.max_setback_bpb:+g} is allowed"
        )
    cpu = cpu_ratio(ours, baseline)
    if cpu is not None and cpu > limits.max_cpu_ratio:
        return (
            f"guardrail: {cpu:.2f} times the optimizer CPU time of the seed program, at most "
            f"{limits.max_cpu_ratio:g} is allowed"
        )
    memory = _memory_ratio(ours, baseline)
    if memory is not None and memory > limits.max_memory_ratio:
        return (
            f"guardrail: {memory:.2f} times the peak memory of the seed program, at most "
            f"{limits.max_memory_ratio:g} is allowed"
        )
    return None


def cpu_ratio(ours: Sequence[Spent], baseline: Sequence[Spent]) -> float | None:
    """Return the median ratio of CPU times over seeds; None where none was taken.

    The median, because a busy machine lengthens now and then a single run.
    """
    ratios = [
        mine.jail_cpu_s / theirs.jail_cpu_s
        for mine, theirs in zip(ours, baseline, strict=True)
        if theirs.jail_cpu_s > 0.0
    ]
    return median(ratios) if ratios else None


def _memory_ratio(ours: Sequence[Spent], baseline: Sequence[Spent]) -> float | None:
    usual = max((spent.peak_memory_bytes for spent in baseline), default=0)
    return max(spent.peak_memory_bytes for spent in ours) / usual if usual and ours else None
