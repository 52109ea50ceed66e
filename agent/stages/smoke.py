"""The smoke test: does it train at all?"""

from __future__ import annotations

from agent.evaluations import Training
from agent.seeds import smoke_seed
from agent.stage import Decided, Stage
from agent.stages.bench import Bench, conclude
from db.records import Program, Verdict
from sandbox.jobs import Status

__all__ = ["SMOKE_STEPS", "smoke"]

# Enough for every schedule to move and momentum to build up, about a fiftieth of a `cpu` run.
SMOKE_STEPS = 8


async def smoke(bench: Bench, candidate: Program) -> Verdict:
    """Train a few steps on one seed; anything but a finished run is refused.

    Raises:
        BudgetSpentError: the run could not be paid for.
    """
    seed = smoke_seed(bench.run_seed)
    measured = await bench.evaluator.measure(
        Training(
            program=candidate,
            stage=Stage.SMOKE,
            steps=SMOKE_STEPS,
            seed=seed,
            horizon=bench.steps,  # of so few steps a longer warm-up would never end
        )
    )
    if measured.status is not Status.OK:
        finding = Decided.REJECT, f"{measured.status}: {measured.reason}"
        return conclude(bench, candidate, Stage.SMOKE, finding)
    return conclude(
        bench, candidate, Stage.SMOKE, (Decided.PASS, f"ok: trains {SMOKE_STEPS} steps")
    )
