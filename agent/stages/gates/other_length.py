"""The length gate: is a program still sound in a run of another length than the one it won?"""

from __future__ import annotations

from agent.seeds import secret_steps
from agent.stages.gates.gate import Case, Failed

__all__ = ["FAR_WORSE_BPB", "LENGTHS", "other_length_gate"]

# Shorter than the full horizon, because that is cheaper; not below a quarter of it, which the
# screen has seen and which longer warm-ups do not fit into.
LENGTHS = (0.5, 0.75)

# As in the screen: one pair says little of a small difference. Honest edits that were ahead at the
# full horizon were at most .011 behind at six tenths of it.
FAR_WORSE_BPB = 0.03


async def other_length_gate(case: Case) -> str | None:
    """Ask whether the candidate falls far behind its incumbent in a run of a secret length.

    Raises:
        BudgetSpentError: a run could not be paid for.
    """
    steps = secret_steps(
        case.bench.run_seed,
        case.candidate.id,
        "other length",
        steps=case.bench.steps,
        share=LENGTHS,
    )
    measured = await case.train(steps=steps)
    if isinstance(measured, Failed):
        return f"horizon: fails in a run of {steps} steps: {measured.reason}"
    reference = await case.train_incumbent(steps)
    if reference.bpb is None:
        return None  # no fault of the candidate's
    behind = measured.bpb - reference.bpb
    if behind > FAR_WORSE_BPB:
        return (
            f"horizon: {behind:+.4f} bpb against its incumbent in a run of {steps} steps, though "
            f"ahead at {case.bench.steps}; let schedules follow total_steps"
        )
    return None
