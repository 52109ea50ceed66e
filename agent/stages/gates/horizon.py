"""The horizon gate: does a program recognise the run it is scored on?

Schedules may follow the horizon they are told, so the first steps of a run told 400 steps and of
one told 401 differ a little. A program that tests for 400 itself differs a lot.
"""

from __future__ import annotations

from statistics import median

from agent.seeds import secret_steps
from agent.stages.gates.distances import distances
from agent.stages.gates.gate import Case, Failed, Finished
from agent.stages.smoke import SMOKE_STEPS

__all__ = ["ALONE_DISTANCE", "JUMP_DISTANCE", "NEAR", "horizon_gate"]

# How far any parameter may be from where it goes with both neighbouring horizons. Schedules moved
# one by at most .05 (a warm-down over the whole of 40 steps), and by less than .03 otherwise; a
# learning rate times 1.1 at one horizon alone moves one by .20 or more, times 1.3 by .41.
ALONE_DISTANCE = 0.15

# How far most parameters may be from where they go with one other horizon. On one side a schedule
# may jump: a warm-up of int(.005 * total_steps) has 2 steps of 400 and 1 of 399, which moved the
# median by .52, the most of 13 warm-ups tried. A learning rate times 3 moved it by .79 or more.
JUMP_DISTANCE = 0.65

# Near enough for schedules in fractions to be much the same, at a place nobody can know.
NEAR = (0.8, 0.95)


async def horizon_gate(case: Case) -> str | None:
    """Ask whether the first steps change when the candidate is told another horizon.

    Raises:
        BudgetSpentError: a run could not be paid for.
    """
    full = case.bench.steps
    secret = secret_steps(
        case.bench.run_seed, case.candidate.id, "near horizon", steps=full, share=NEAR
    )
    told = await _begin(case, full)
    if isinstance(told, Failed):
        return f"{told.status}: {told.reason}"
    found: dict[int, list[float]] = {}
    for horizon in (full - 1, full + 1, secret):
        other = await _begin(case, horizon)
        if isinstance(other, Failed):
            return f"horizon: fails if told {horizon} steps instead of {full}: {other.reason}"
        found[horizon] = list(distances(told.evidence, other.evidence).values())
    return _judged(found, full)


def _judged(found: dict[int, list[float]], full: int) -> str | None:
    """Return what is wrong with the distances to the runs told other horizons, if anything is."""
    if min(max(found[full + side], default=0.0) for side in (-1, 1)) > ALONE_DISTANCE:
        return (
            f"recognises the horizon: its first {SMOKE_STEPS} steps told {full} steps differ from "
            f"those told {full - 1} and {full + 1} alike; schedules may use total_steps, not test "
            "for a value of it"
        )
    for horizon, each in found.items():
        if each and median(each) > JUMP_DISTANCE:
            return (
                f"recognises the horizon: its first {SMOKE_STEPS} steps told {full} steps are "
                f"nothing like those told {horizon}; let schedules change smoothly with "
                "total_steps"
            )
    return None


async def _begin(case: Case, horizon: int) -> Finished | Failed:
    return await case.train(steps=SMOKE_STEPS, horizon=horizon)
