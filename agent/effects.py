"""Read the effect that a stored verdict states."""

from __future__ import annotations

from agent.sequential import Effect
from db.records import Verdict

__all__ = ["effect_of"]


def effect_of(verdict: Verdict) -> Effect | None:
    """Return a verdict's effect with its interval; None where it compares with nothing.

    A single pair has an effect and no interval, and counts as none.
    """
    if verdict.effect_bpb is None or verdict.interval_low is None or verdict.interval_high is None:
        return None
    return Effect(
        mean=verdict.effect_bpb,
        low=verdict.interval_low,
        high=verdict.interval_high,
        pairs=verdict.pairs,
    )
