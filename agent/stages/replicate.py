"""Replication: does a race win hold on seeds nobody has looked at?

The winner of a race was picked among many for being ahead, on seeds all its rivals shared; its
lead there is too good on average. So it is measured again on fresh seeds, and only what these say
is reported. The seed program runs on them as well, and what the candidate costs is held against
what that one costs.

There is no gate between two validation texts here (`agent.statistics.holdout_gate`): it compares
effects on both that come from the same training runs, and a run is validated on one. What protects
against luck of the seeds is that these are fresh; whether a search has adapted to its text is what
confirming it on sealed text shows, and the ledger of looks says how often its own was read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean

from agent.effects import paired_effect
from agent.guardrails import breach
from agent.seeds import race_seeds
from agent.stage import Decided, Stage, Stopped
from agent.stages.bench import Bench, Comparison, conclude
from agent.stages.pairing import Pairing, PairingError
from agent.statistics.paired_test import decide
from db.records import Program, Verdict

__all__ = ["REPLICATE_PAIRS", "Replication", "replicate"]

# With 4 pairs the reported interval is 3.2 standard errors to either side; 8 would narrow it to
# 2.4 of smaller ones, at 12 more training runs for every champion.
REPLICATE_PAIRS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Replication:
    """The verdict against the incumbent and, if that promotes, the one against the seed program."""

    against_incumbent: Verdict
    against_baseline: Verdict | None


async def replicate(bench: Bench, candidate: Program, incumbent: Program) -> Replication:
    """Compare with the incumbent and with the seed program on the candidate's own, fresh seeds.

    The candidate is promoted if it is ahead of the incumbent on average here too, and within the
    guardrails.

    Raises:
        BudgetSpentError: a run could not be paid for.
    """
    try:
        rival = await _fresh_pairs(bench, candidate, incumbent)
        comparison = _compared(bench, rival)
        if comparison.effect is None or comparison.effect.mean >= 0.0:
            return _refused(bench, candidate, comparison, _not_held(rival))
        base = await _fresh_pairs(bench, candidate, bench.seed_program)
    except PairingError as failure:
        comparison = Comparison(reference_id=incumbent.id, stopped=Stopped.FAILED)
        return _refused(bench, candidate, comparison, str(failure))
    if broken := breach(
        bench.guardrails,
        setbacks=rival.differences,
        ours=base.spent,
        baseline=base.reference_spent,
    ):
        stopped = replace(comparison, stopped=Stopped.GUARDRAIL)
        return _refused(bench, candidate, stopped, broken)
    return _promoted(bench, candidate, comparison, base)


async def _fresh_pairs(bench: Bench, candidate: Program, reference: Program) -> Pairing:
    seeds = race_seeds(bench.run_seed, candidate.id, season=0)
    pairing = Pairing(bench, candidate, reference, seeds)
    await pairing.grow(REPLICATE_PAIRS, stage=Stage.REPLICATE, steps=bench.steps)
    return pairing


def _compared(bench: Bench, pairing: Pairing) -> Comparison:
    """State fresh pairs with Student's interval: their number was fixed in advance."""
    return Comparison(
        reference_id=pairing.reference.id,
        effect=paired_effect(pairing.differences),
        seeds=tuple(pairing.seeds),
        log_e=decide(pairing.differences, bench.design).log_e,
        stopped=Stopped.OUT_OF_PAIRS,
    )


def _not_held(pairing: Pairing) -> str:
    pairs = len(pairing.differences)
    return f"did not hold: {fmean(pairing.differences):+.4f} bpb on {pairs} fresh seeds"


def _refused(bench: Bench, candidate: Program, comparison: Comparison, reason: str) -> Replication:
    finding = (Decided.REJECT, reason)
    verdict = conclude(bench, candidate, Stage.REPLICATE, finding, comparison)
    return Replication(against_incumbent=verdict, against_baseline=None)


def _promoted(
    bench: Bench, candidate: Program, comparison: Comparison, base: Pairing
) -> Replication:
    held = f"held: ahead of its incumbent on {REPLICATE_PAIRS} fresh seeds too"
    measured = f"measured: {fmean(base.differences):+.4f} bpb against the seed program"
    return Replication(
        against_incumbent=conclude(
            bench, candidate, Stage.REPLICATE, (Decided.PROMOTE, held), comparison
        ),
        against_baseline=conclude(
            bench, candidate, Stage.BASELINE, (Decided.PASS, measured), _compared(bench, base)
        ),
    )
