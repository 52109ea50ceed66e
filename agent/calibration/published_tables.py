"""Write what published runs say about stages and rules as Markdown tables."""

from __future__ import annotations

from agent.calibration.published import OnPublished
from agent.calibration.tables import percent, table
from agent.statistics.rank_correlation import RankCorrelation

__all__ = ["published_tables"]


def published_tables(found: OnPublished) -> str:
    """Return a table of stages and one of rules, with what they rest on above them."""
    left_out = f", {found.left_out} left out" if found.left_out else ""
    stages = [
        [
            f"{one.steps}",
            "-" if one.next_steps is None else f"{one.next_steps}",
            _correlation(one.to_next),
            _correlation(one.to_need),
            "yes" if one.may_prune else "no",
        ]
        for one in found.stages
    ]
    gains = [f"gain {point.gain_bpb:g} nats" for point in found.rules[0][1][1:]]
    rules = [[name, *(percent(point.accepted) for point in points)] for name, points in found.rules]
    header = ["steps", "next", "rank correlation with next", "with steps needed", "may prune"]
    on_stages = (
        f"Published runs: {found.runs} of {found.submissions} submissions{left_out}. Ranking by "
        "the mean loss after some steps, against the next longer stage and against the steps a "
        "submission needed; Spearman, 90 % intervals."
    )
    on_noise = (
        f"Seed noise of {found.comparisons} submissions, unpaired, {found.trials} trials per "
        "figure, 95 % intervals."
    )
    accepts = table(["accepts", "no gain (A/A)", *gains], rules)
    return "\n\n".join([on_stages, table(header, stages), on_noise, accepts]) + "\n"


def _correlation(found: RankCorrelation | None) -> str:
    if found is None:
        return "-"
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f}, n {found.programs})"
