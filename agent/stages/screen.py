"""The screen: one short pair, to spare the race what is clearly worse or nothing new.

Being nothing new is a fact. Being worse is a forecast, and rejects only where the screen's
forecasts were found to be good (`agent.foresight`), and not those whom the lot spares.
"""

from __future__ import annotations

from collections.abc import MutableMapping

from agent.effects import single_pair
from agent.evaluations import Measured, Training
from agent.seeds import screen_seed
from agent.stage import Decided, Stage
from agent.stages.bench import Bench, Comparison, conclude
from agent.stages.smoke import SMOKE_STEPS
from db.records import Program, Verdict

__all__ = ["SCREEN_MARGIN_BPB", "Behaviours", "screen", "screen_steps"]

# A paired difference over one seed has a standard deviation of .001 to .013 at the full horizon
# of the `cpu` profile, and real gains are .002 to .006: only what is far behind may be dropped on
# the evidence of one short pair.
SCREEN_MARGIN_BPB = 0.03

# Which program first came to these weights and this score on this seed. Taken here and not in
# the smoke test, because what a program does late need not show in its first steps.
Behaviours = MutableMapping[tuple[int, str | None, float | None], str]


def screen_steps(steps: int) -> int:
    """Return the horizon of the screen: a quarter of the full one."""
    return max(SMOKE_STEPS, steps // 4)


async def screen(
    bench: Bench,
    candidate: Program,
    incumbent: Program,
    behaviours: Behaviours,
    *,
    may_prune: bool,
) -> Verdict:
    """Compare with the incumbent on one common seed at a quarter of the horizon.

    A candidate that comes to the very weights of a known program does what that one does, and is
    not trained further.

    Args:
        bench: the means of judging.
        candidate: what is judged.
        incumbent: what it is compared with.
        behaviours: what is known of other programs; this one's is added.
        may_prune: whether being far behind is a reason to reject. If not, the candidate is one of
            those that show what the screen foretells.

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
    _twin(incumbent, seed, reference, behaviours)
    comparison = Comparison(reference_id=incumbent.id)
    twin = _twin(candidate, seed, measured, behaviours)
    if measured.bpb is None:
        finding = (Decided.REJECT, f"{measured.status}: {measured.reason}")
    elif twin is not None:
        reason = f"same behaviour: after {steps} steps identical to program {twin[:12]}"
        finding = (Decided.REJECT, reason)
    elif reference.bpb is None:
        finding = (Decided.PASS, f"no reference: the incumbent failed, {reference.reason}")
    else:
        difference = measured.bpb - reference.bpb
        comparison = Comparison(
            reference_id=incumbent.id,
            effect=single_pair(difference),
            seeds=(seed,),
            is_sample=not may_prune,
        )
        finding = _finding(difference, steps, may_prune=may_prune)
    return conclude(bench, candidate, Stage.SCREEN, finding, comparison)


def _finding(difference: float, steps: int, *, may_prune: bool) -> tuple[Decided, str]:
    measured = f"{difference:+.4f} bpb after {steps} steps"
    if difference <= SCREEN_MARGIN_BPB:
        return Decided.PASS, f"near enough: {measured}"
    if may_prune:
        return Decided.REJECT, f"far behind: {measured}"
    return Decided.PASS, f"spared: far behind, {measured}, and goes on to show what that means"


def _twin(program: Program, seed: int, measured: Measured, behaviours: Behaviours) -> str | None:
    """Return the program that behaved like this one before, or note this one as the first."""
    if measured.bpb is None:
        return None
    owner = behaviours.setdefault((seed, measured.fingerprint, measured.bpb), program.id)
    return owner if owner != program.id else None
