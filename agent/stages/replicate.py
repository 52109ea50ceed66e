"""Replication: does a race win hold on seeds nobody has looked at?

The winner of a race was picked among many for being ahead, on seeds all its rivals shared; its
lead there is too good on average. So it is measured again on fresh seeds, and only what these say
is reported.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.seeds import race_seeds
from agent.sequential import Effect, paired_effect
from agent.stage import Decided, Stage
from agent.stages.bench import Bench, Comparison, conclude
from agent.stages.pairing import Pairing, PairingError
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

    The candidate is promoted if it is ahead of the incumbent on average here too.

    Raises:
        BudgetSpentError: a run could not be paid for.
    """
    try:
        effect, seeds = await _fresh_effect(bench, candidate, incumbent)
        if effect.mean >= 0.0:
            return _refused(bench, candidate, incumbent, (effect, seeds))
        base_effect, base_seeds = await _fresh_effect(bench, candidate, bench.seed_program)
    except PairingError as failure:
        finding = (Decided.REJECT, str(failure))
        comparison = Comparison(reference_id=incumbent.id)
        verdict = conclude(bench, candidate, Stage.REPLICATE, finding, comparison)
        return Replication(against_incumbent=verdict, against_baseline=None)
    reason = f"held: ahead of its incumbent on {effect.pairs} fresh seeds too"
    return Replication(
        against_incumbent=conclude(
            bench,
            candidate,
            Stage.REPLICATE,
            (Decided.PROMOTE, reason),
            Comparison(reference_id=incumbent.id, effect=effect, seeds=seeds),
        ),
        against_baseline=conclude(
            bench,
            candidate,
            Stage.BASELINE,
            (Decided.PASS, f"measured: {base_effect.mean:+.4f} bpb against the seed program"),
            Comparison(reference_id=bench.seed_program.id, effect=base_effect, seeds=base_seeds),
        ),
    )


async def _fresh_effect(
    bench: Bench, candidate: Program, reference: Program
) -> tuple[Effect, tuple[int, ...]]:
    pairing = Pairing(bench, candidate, reference, race_seeds(bench.run_seed, candidate.id))
    await pairing.grow(REPLICATE_PAIRS, stage=Stage.REPLICATE, steps=bench.steps)
    return paired_effect(pairing.differences), tuple(pairing.seeds)


def _refused(
    bench: Bench, candidate: Program, incumbent: Program, found: tuple[Effect, tuple[int, ...]]
) -> Replication:
    reason = f"did not hold: {found[0].mean:+.4f} bpb on {found[0].pairs} fresh seeds"
    verdict = conclude(
        bench,
        candidate,
        Stage.REPLICATE,
        (Decided.REJECT, reason),
        Comparison(reference_id=incumbent.id, effect=found[0], seeds=found[1]),
    )
    return Replication(against_incumbent=verdict, against_baseline=None)
