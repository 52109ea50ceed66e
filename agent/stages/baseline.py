"""The first measurement of a run: the seed program at the full horizon."""

from __future__ import annotations

from agent.evaluations import Training
from agent.seeds import race_seeds
from agent.stage import Decided, Stage
from agent.stages.bench import Bench, conclude
from agent.stages.smoke import SMOKE_STEPS, smoke
from db.records import Verdict

__all__ = ["SeedProgramError", "crown_seed_program"]


class SeedProgramError(Exception):
    """The seed program itself does not train, so there is nothing to improve on."""


async def crown_seed_program(bench: Bench) -> tuple[Verdict, Verdict]:
    """Train the seed program briefly and at the full horizon; it is the first champion.

    Its full run is on its first race seed, where the first race needs it, and its cost sets
    the limits of all later runs.

    Returns:
        Its smoke verdict and its promotion.

    Raises:
        SeedProgramError: it did not finish.
        BudgetSpentError: a run could not be paid for.
    """
    program = bench.seed_program
    smoked = await smoke(bench, program, champion=program)
    if smoked.decision == Decided.REJECT:
        raise SeedProgramError(
            f"the seed program failed over {SMOKE_STEPS} steps: {smoked.reason}; this profile's "
            "schedules or this machine's sandbox cannot carry a run"
        )
    seed = next(race_seeds(bench.run_seed, program.id, season=0))
    measured = await bench.evaluator.measure(
        Training(program=program, stage=Stage.BASELINE, steps=bench.steps, seed=seed)
    )
    if measured.bpb is None:
        raise SeedProgramError(f"the seed program failed at the full horizon: {measured.reason}")
    reason = f"seed program: {measured.bpb:.4f} bpb on its first seed, the champion to beat"
    promotion = conclude(bench, program, Stage.BASELINE, (Decided.PROMOTE, reason))
    return smoked, promotion
