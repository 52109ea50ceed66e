"""The smoke test: does it train at all?"""

from __future__ import annotations

from agent.effects import single_pair
from agent.evaluations import Measured, Training
from agent.seeds import smoke_seed
from agent.stage import Decided, Stage
from agent.stages.bench import Bench, Comparison, conclude
from db.records import Program, Verdict
from sandbox.jobs import Status

__all__ = ["SMOKE_STEPS", "smoke"]

# Enough for every schedule to move and momentum to build up, about a fiftieth of a `cpu` run.
SMOKE_STEPS = 8


async def smoke(bench: Bench, candidate: Program, champion: Program) -> Verdict:
    """Train a few steps on one seed; anything but a finished run is refused.

    No score is: how far ahead of the champion the candidate is by then is noted, to see what it
    foretells.

    Raises:
        BudgetSpentError: the run could not be paid for.
    """
    measured = await _begun(bench, candidate)
    if measured.status is not Status.OK:
        finding = Decided.REJECT, f"{measured.status}: {measured.reason}"
        return conclude(bench, candidate, Stage.SMOKE, finding)
    finding = Decided.PASS, f"ok: trains {SMOKE_STEPS} steps"
    if candidate.id == champion.id:  # the seed program, in the run's first measurement
        return conclude(bench, candidate, Stage.SMOKE, finding)
    reference = await _begun(bench, champion)
    comparison = None
    if measured.bpb is not None and reference.bpb is not None:
        comparison = Comparison(
            reference_id=champion.id,
            effect=single_pair(measured.bpb - reference.bpb),
            seeds=(smoke_seed(bench.run_seed),),
            is_sample=True,
        )
    return conclude(bench, candidate, Stage.SMOKE, finding, comparison)


async def _begun(bench: Bench, program: Program) -> Measured:
    return await bench.evaluator.measure(
        Training(
            program=program,
            stage=Stage.SMOKE,
            steps=SMOKE_STEPS,
            seed=smoke_seed(bench.run_seed),
            horizon=bench.steps,  # of so few steps a longer warm-up would never end
        )
    )
