"""The screen: one short pair, to spare the race what is clearly worse."""

from __future__ import annotations

from agent.evaluations import Training
from agent.seeds import screen_seed
from agent.sequential import single_pair
from agent.stage import Decided, Stage
from agent.stages.bench import Bench, Comparison, conclude
from agent.stages.smoke import SMOKE_STEPS
from db.records import Program, Verdict

__all__ = ["SCREEN_MARGIN_BPB", "screen", "screen_steps"]

# A paired difference over one seed has a standard deviation of .001 to .013 at the full horizon
# of the `cpu` profile, and real gains are .002 to .006: only what is far behind may be dropped on
# the evidence of one short pair.
SCREEN_MARGIN_BPB = 0.03


def screen_steps(steps: int) -> int:
    """Return the horizon of the screen: a quarter of the full one."""
    return max(SMOKE_STEPS, steps // 4)


async def screen(bench: Bench, candidate: Program, incumbent: Program) -> Verdict:
    """Compare with the incumbent on one common seed at a quarter of the horizon.

    Raises:
        BudgetSpentError: a run could not be paid for.
    """
    seed = screen_seed(bench.run_seed, incumbent.id)
    steps = screen_steps(bench.steps)
    reference, measured = [
        await bench.evaluator.measure(
            Training(program=program, stage=Stage.SCREEN, steps=steps, seed=seed)
        )
        for program in (incumbent, candidate)
    ]
    comparison = Comparison(reference_id=incumbent.id)
    if measured.bpb is None:
        finding = (Decided.REJECT, f"{measured.status}: {measured.reason}")
    elif reference.bpb is None:
        finding = (Decided.PASS, f"no reference: the incumbent failed, {reference.reason}")
    else:
        difference = measured.bpb - reference.bpb
        comparison = Comparison(
            reference_id=incumbent.id, effect=single_pair(difference), seeds=(seed,)
        )
        finding = (Decided.PASS, f"near enough: {difference:+.4f} bpb after {steps} steps")
        if difference > SCREEN_MARGIN_BPB:
            finding = (Decided.REJECT, f"far behind: {difference:+.4f} bpb after {steps} steps")
    return conclude(bench, candidate, Stage.SCREEN, finding, comparison)
