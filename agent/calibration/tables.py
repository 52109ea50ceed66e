"""Write a calibration as Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agent.calibration.operating import Point, Rate
from agent.calibration.searches import Searches
from agent.calibration.simulated import Calibration

__all__ = ["tables"]

SEARCH_COLUMNS = (
    *("promotions", "of these fooled", "reported gain", "true gain"),
    *("claims", "false claims", "confirmed gain", "per core hour"),
)


def tables(found: Calibration) -> str:
    """Return the tables of one calibration, with what they rest on above them."""
    judge = found.replayed[0].points
    gains = [f"gain {point.gain_bpb:g} bpb" for point in judge[1:]]
    noise = "made-up noise" if found.simulated else "resampled real noise"
    source = (
        f"{found.origin}: {noise} of {found.comparisons} comparisons, "
        f"{found.trials} trials per figure, 95 % intervals."
    )
    accepted = [
        [one.rule, *(_percent(point.accepted) for point in one.points)] for one in found.replayed
    ]
    searches = [_search_row(one.searches) for one in found.replayed]
    of_nothing = [_search_row(one.of_nothing) for one in found.replayed]
    blocks = [
        source,
        _table(["accepts", "no gain (A/A)", *gains], accepted),
        _table(["the judge", "no gain (A/A)", *gains], _judge_rows(judge)),
        _table(["whole searches", *SEARCH_COLUMNS], searches),
        _table(["searches with nothing to find", *SEARCH_COLUMNS], of_nothing),
        _compute_line(found),
    ]
    return "\n\n".join(blocks) + "\n"


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
        "-" if found.fooled is None else _percent(found.fooled),
        f"{found.reported_gain_bpb:+.4f}",
        f"{found.true_gain_bpb:+.4f} (se {found.true_gain_error:.4f})",
        _percent(found.claims),
        _percent(found.false_claims),
        f"{found.confirmed_gain_bpb:+.4f}",
        f"{found.confirmed_gain_per_core_hour:.4f}",
    ]


def _compute_line(found: Calibration) -> str:
    compute = found.compute
    own = " and ".join(_percent(point.accepted) for point in compute.unpaired)
    return (
        f"A decision at {compute.gain_bpb:g} bpb and {100.0 * compute.power:.1f} % power: "
        f"{compute.judge_runs:.1f} training runs on average over gain and no gain; an unpaired "
        f"fixed-sample test takes {compute.unpaired_runs}, so the judge needs {compute.ratio:.3f} "
        f"of it. That test accepts {own} without and with the gain."
    )


def _effect(mean_bpb: float) -> str:
    return "-" if math.isnan(mean_bpb) else f"{mean_bpb:+.4f}"


def _percent(rate: Rate) -> str:
    low, high = 100.0 * rate.low, 100.0 * rate.high
    return f"{100.0 * rate.share:.2f} % ({low:.2f} to {high:.2f})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
