"""The smoke test: does it train at all, and does it do anything new?"""

from __future__ import annotations

from collections.abc import MutableMapping

from agent.evaluations import Training
from agent.seeds import smoke_seed
from agent.stage import Decided, Stage
from agent.stages.bench import Bench, conclude
from db.records import Program, Verdict
from sandbox.jobs import Status

__all__ = ["SMOKE_STEPS", "Behaviours", "smoke"]

# Enough for every schedule to move and momentum to build up, about a fiftieth of a `cpu` run.
SMOKE_STEPS = 8

# Which program first trained to these parameters, and to this score, on the smoke seed. The
# score is part of it because an average of the weights may be validated instead of them.
Behaviours = MutableMapping[tuple[str | None, float | None], str]


async def smoke(bench: Bench, candidate: Program, behaviours: Behaviours) -> Verdict:
    """Train a few steps on one seed; anything but a new, finished result is refused.

    A candidate that ends with the very parameters of a known program behaves like it as far as
    the smoke test can see, and is not trained further.

    Raises:
        BudgetSpentError: the run could not be paid for.
    """
    seed = smoke_seed(bench.run_seed)
    measured = await bench.evaluator.measure(
        Training(program=candidate, stage=Stage.SMOKE, steps=SMOKE_STEPS, seed=seed)
    )
    if measured.status is not Status.OK:
        finding = Decided.REJECT, f"{measured.status}: {measured.reason}"
        return conclude(bench, candidate, Stage.SMOKE, finding)
    owner = behaviours.setdefault((measured.fingerprint, measured.bpb), candidate.id)
    if owner != candidate.id:
        reason = f"same behaviour: after {SMOKE_STEPS} steps identical to program {owner[:12]}"
        return conclude(bench, candidate, Stage.SMOKE, (Decided.REJECT, reason))
    return conclude(
        bench, candidate, Stage.SMOKE, (Decided.PASS, f"ok: trains {SMOKE_STEPS} steps")
    )
