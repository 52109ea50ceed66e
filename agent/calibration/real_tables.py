"""Write what the real pipeline made of the plants as Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agent.calibration.operating import Rate
from agent.calibration.plants import Kind
from agent.calibration.real import Measured, Result
from agent.calibration.tables import percent, table
from agent.words import counted

__all__ = ["faults", "real_tables"]

NOMINAL_CLAIMS = 0.01
COLUMNS = (
    "trials",
    "promoted",
    "claimed",
    "worth (bpb)",
    "reported (bpb)",
    "pairs",
    "runs",
    "ended",
)


def real_tables(found: Sequence[Result], alpha: float) -> str:
    """Return the error rates in words, and a table with a row for every plant.

    Args:
        found: what became of the plants.
        alpha: the nominal rate of false promotions.
    """
    if not found:
        return "No trial was finished.\n"
    words = [_error_rates(one, alpha) for one in found if one.kind is Kind.CHANCE]
    words += [f"Fault: {fault}." for fault in faults(found, alpha)]
    rows = [[f"{one.kind}: {one.name}", *_row(one)] for one in found]
    return "\n\n".join([*words, table(["candidate", *COLUMNS], rows)]) + "\n"


def faults(found: Sequence[Result], alpha: float) -> tuple[str, ...]:
    """Say what is demonstrably wrong with the judge, in sentences without their full stop."""
    said = []
    for one in found:
        if one.kind is Kind.CHANCE:
            said += _excess("false promotions", one.promoted, alpha)
            said += _excess("false claims", one.claimed, NOMINAL_CLAIMS)
        elif one.kind is not Kind.GAIN and one.promoted.count:
            trials = counted(one.promoted.count, "trial")
            said.append(f"{one.name}, which is no better, was promoted in {trials}")
    return tuple(said)


def _excess(what: str, rate: Rate, nominal: float) -> list[str]:
    if rate.low <= nominal:
        return []
    return [f"{what}: {percent(rate)} of trials, nominally {100.0 * nominal:g} % at most"]


def _error_rates(one: Result, alpha: float) -> str:
    return (
        f"Candidates no better than their incumbent, {counted(one.promoted.trials, 'run')}: "
        f"false promotions {percent(one.promoted)}, nominally {100.0 * alpha:g} % at most; false "
        f"claims {percent(one.claimed)}, nominally {100.0 * NOMINAL_CLAIMS:g} % at most. "
        "95 % intervals."
    )


def _row(one: Result) -> list[str]:
    ends = ", ".join(f"{stage} {count}" for stage, count in sorted(one.ends.items()))
    return [
        str(one.promoted.trials),
        percent(one.promoted),
        percent(one.claimed),
        _worth(one.effect),
        "-" if math.isnan(one.mean_reported_bpb) else f"{one.mean_reported_bpb:+.4f}",
        "-" if math.isnan(one.mean_pairs) else f"{one.mean_pairs:.1f}",
        f"{one.mean_runs:.0f}",
        ends,
    ]


def _worth(effect: Measured | None) -> str:
    if effect is None:
        return "-"
    return (
        f"{effect.mean_bpb:+.4f} ({effect.low_bpb:+.4f} to {effect.high_bpb:+.4f}), "
        f"sd {effect.sd_bpb:.4f}"
    )
