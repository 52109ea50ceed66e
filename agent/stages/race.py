"""The race: more and more pairs against the champion, until the sequential test decides.

A champion's runs are shared by the challengers of one season and then made anew on fresh seeds, so
that neither luck in its election nor luck on later seeds protects it for good.
"""

from __future__ import annotations

from agent.guardrails import breach
from agent.seeds import race_seeds
from agent.stage import Decided, Stage, Stopped
from agent.stages.bench import Bench, Comparison, conclude
from agent.stages.pairing import Pairing, PairingError
from agent.statistics.paired_test import Decision, DecisionKind, Design, decide
from db.records import Program, Verdict

__all__ = ["SEASON", "race", "season_of"]

# Challengers before a champion's runs are made anew. Sharing saves runs, but a lucky champion stays
# lucky. In simulated searches of 3000 runs (`agent.calibration.incumbents`, 1000 of them; one
# candidate in 40 gains one paired sd of .005 bpb, half of them nothing, half lose one), seasons of
# 4, 16, 32, 64 and all challengers gained .050, .062, .068, .070 and .071 bpb (each +-.0005) and
# found 90, 90, 90, 89 and 86 % of the gains they met: 32 loses next to nothing of either.
# Beginning with fresh seeds instead of those of the election gained .065 and found as many.
SEASON = 32


def season_of(challengers: int) -> int:
    """Return the season in which a champion that met so many challengers meets the next."""
    return challengers // SEASON


async def race(bench: Bench, candidate: Program, champion: Program, *, season: int) -> Verdict:
    """Run candidate and champion on the season's seeds, at the full horizon.

    The challengers of a season share the champion's runs. That makes their luck common as well,
    which is why a win here is not yet a promotion.

    Raises:
        BudgetSpentError: a run could not be paid for.
    """
    pairing = Pairing(bench, candidate, champion, race_seeds(bench.run_seed, champion.id, season))
    try:
        decision = await _decided(pairing, bench)
    except PairingError as failure:
        comparison = Comparison(reference_id=champion.id, stopped=Stopped.FAILED)
        finding = (Decided.REJECT, str(failure))
        return conclude(bench, candidate, Stage.RACE, finding, comparison)
    stopped = _stopped(decision, bench.design)
    finding = (Decided.REJECT, f"not better: {decision.reason}")
    if stopped is Stopped.BETTER:
        finding = (Decided.PASS, f"won: {decision.reason}")
        if broken := breach(bench.guardrails, setbacks=pairing.differences):
            stopped = Stopped.GUARDRAIL
            finding = (Decided.REJECT, f"{broken}, though {decision.reason}")
    comparison = Comparison(
        reference_id=champion.id,
        effect=decision.effect,
        seeds=tuple(pairing.seeds),
        log_e=decision.log_e,
        stopped=stopped,
    )
    return conclude(bench, candidate, Stage.RACE, finding, comparison)


async def _decided(pairing: Pairing, bench: Bench) -> Decision:
    """Add pairs one by one until the test decides; at its last pair it always does."""
    for pairs in range(1, bench.design.max_pairs + 1):
        await pairing.grow(pairs, stage=Stage.RACE, steps=bench.steps)
        decision = decide(pairing.differences, bench.design)
        if decision.kind is not DecisionKind.CONTINUE:
            return decision
    raise AssertionError("the last pair decides")


def _stopped(decision: Decision, design: Design) -> Stopped:
    """Name the rule that ended a race; the order is that of the test itself."""
    if decision.kind is DecisionKind.ACCEPT:
        return Stopped.BETTER
    if decision.effect.low > -design.smallest_gain_bpb:
        return Stopped.NEGLIGIBLE
    if decision.effect.pairs == design.max_pairs:
        return Stopped.OUT_OF_PAIRS
    return Stopped.FUTILE
