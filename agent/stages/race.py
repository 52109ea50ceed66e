"""The race: more and more pairs against the champion, until the sequential test decides."""

from __future__ import annotations

from agent.seeds import race_seeds
from agent.sequential import LOOKS, Decision, DecisionKind, decide
from agent.stage import Decided, Stage
from agent.stages.bench import Bench, Comparison, conclude
from agent.stages.pairing import Pairing, PairingError
from db.records import Program, Verdict

__all__ = ["race"]


async def race(bench: Bench, candidate: Program, champion: Program) -> Verdict:
    """Run candidate and champion on the champion's own seeds, at the full horizon.

    The champion's runs are shared by all its challengers. That makes their luck common as well,
    which is why a win here is not yet a promotion.

    Raises:
        BudgetSpentError: a run could not be paid for.
    """
    pairing = Pairing(bench, candidate, champion, race_seeds(bench.run_seed, champion.id))
    try:
        decision = await _looked_at(pairing, bench.steps)
    except PairingError as failure:
        comparison = Comparison(reference_id=champion.id)
        finding = (Decided.REJECT, str(failure))
        return conclude(bench, candidate, Stage.RACE, finding, comparison)
    comparison = Comparison(
        reference_id=champion.id, effect=decision.effect, seeds=tuple(pairing.seeds)
    )
    won = decision.kind is DecisionKind.ACCEPT
    finding = (
        Decided.PASS if won else Decided.REJECT,
        f"{'won' if won else 'not better'}: {decision.reason}",
    )
    return conclude(bench, candidate, Stage.RACE, finding, comparison)


async def _looked_at(pairing: Pairing, steps: int) -> Decision:
    """Grow the pairs from look to look until the test decides; the last look always does."""
    for look in LOOKS:
        await pairing.grow(look.pairs, stage=Stage.RACE, steps=steps)
        decision = decide(pairing.differences)
        if decision.kind is not DecisionKind.CONTINUE:
            return decision
    raise AssertionError("the last look decides")
