"""Write a calibration as Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agent.calibration.operating import Point, Rate
from agent.calibration.searches import Searches
from agent.calibration.simulated import CONFIRMATIONS, Calibration

__all__ = ["percent", "table", "tables"]

SEARCH_COLUMNS = (
    *("promotions", "of these fooled", "reported gain", "true gain"),
    *("claims", "false claims", "confirmed gain", "per core hour"),
)


def tables(found: Calibration) -> str:
    """Return the tables of one calibration, with what they rest on above them."""
    judge = found.replayed[0].points
    gains = [f"gain {point.gain_bpb:g} bpb" for point in judge[1:]]
    noise = "made-up noise" if found.simulated else "resampled real noise"
    few, many = found.seeds
    seeds = f"{few} seeds" if few == many else f"{few} to {many} seeds"
    source = (
        f"{found.origin}: {noise} of {found.comparisons} comparisons on {seeds}, "
        f"{found.trials} trials per figure, 95 % intervals."
    )
    accepted = [
        [one.rule, *(percent(point.accepted) for point in one.points)] for one in found.replayed
    ]
    searches = [_search_row(one.searches) for one in found.replayed]
    of_nothing = [_search_row(one.of_nothing) for one in found.replayed]
    blocks = [
        source,
        _error_rates(found),
        table(["accepts", "no gain (A/A)", *gains], accepted),
        table(["the judge", "no gain (A/A)", *gains], _judge_rows(judge)),
        table(["whole searches", *SEARCH_COLUMNS], searches),
        table(["searches with nothing to find", *SEARCH_COLUMNS], of_nothing),
        _compute_line(found),
    ]
    return "\n\n".join(blocks) + "\n"


def percent(rate: Rate) -> str:
    """Write a rate in percent, with its interval."""
    low, high = 100.0 * rate.low, 100.0 * rate.high
    return f"{100.0 * rate.share:.2f} % ({low:.2f} to {high:.2f})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _error_rates(found: Calibration) -> str:
    judge = found.replayed[0]
    return (
        f"Candidates that are no better: {percent(judge.points[0].accepted)} are promoted, "
        f"nominally {100.0 * found.alpha:g} % at most. Runs with nothing to find: "
        f"{percent(judge.of_nothing.claims)} claim something when they confirm their champion, "
        f"{percent(found.false_claims)} when they confirm {CONFIRMATIONS} programs, nominally "
        "1 % at most."
    )


def _judge_rows(points: Sequence[Point]) -> list[list[str]]:
    misses = (f"{100.0 * (1.0 - point.accepted.share):.1f} %" for point in points[1:])
    return [
        ["pairs on average", *(f"{point.mean_runs / 2.0:.1f}" for point in points)],
        ["missed", "-", *misses],
        ["reported effect", *(_effect(point.mean_measured_bpb) for point in points)],
    ]


def _search_row(found: Searches) -> list[str]:
    return [
        found.rule,
        f"{found.promotions:.1f}",
        "-" if found.fooled is None else percent(found.fooled),
        f"{found.reported_gain_bpb:+.4f}",
        f"{found.true_gain_bpb:+.4f} (se {found.true_gain_error:.4f})",
        percent(found.claims),
        percent(found.false_claims),
        f"{found.confirmed_gain_bpb:+.4f}",
        f"{found.confirmed_gain_per_core_hour:.4f}",
    ]


def _compute_line(found: Calibration) -> str:
    compute = found.compute
    own = " and ".join(percent(point.accepted) for point in compute.unpaired)
    return (
        f"A decision at {compute.gain_bpb:g} bpb and {100.0 * compute.power:.1f} % power: "
        f"{compute.judge_runs:.1f} training runs on average over gain and no gain; an unpaired "
        f"fixed-sample test takes {compute.unpaired_runs}, so the judge needs {compute.ratio:.3f} "
        f"of it. That test accepts {own} without and with the gain."
    )


def _effect(mean_bpb: float) -> str:
    return "-" if math.isnan(mean_bpb) else f"{mean_bpb:+.4f}"
