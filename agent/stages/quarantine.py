"""The quarantine: a score too good to be true is taken again before anything rests on it.

Most such scores are a broken measurement or a trick; a few are real, as when the baseline was
badly tuned. They are told apart by fresh seeds, at a length nobody could know.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from agent.effects import paired_effect
from agent.seeds import quarantine_seeds, secret_steps
from agent.stage import Decided, Stage
from agent.stages.bench import Bench, Comparison, conclude
from agent.stages.pairing import Pairing, PairingError
from agent.stages.screen import screen_steps
from db.records import Program, Verdict

__all__ = ["SUSPICIOUS_GAIN_BPB", "quarantine", "suspicion"]

# Twice the largest effect of a single known change to a tuned optimizer (the factored second
# moment: .048, paired standard deviation .005), eight times the largest paired standard deviation
# seen (.0125), and about what all tuning of the upstream defaults together gained (.12). Of 200
# operators' edits of the tuned `micro` program none was ahead by more than .033 in its screen.
SUSPICIOUS_GAIN_BPB = 0.1

# So much must be there on average over fresh seeds: what a lucky seed shows is mostly gone then.
# Lenient, because who comes out still has to pass the gates, the race and the replication. The
# tuned against an untuned program has differences of -.12 ± .085 in the screen of `micro`, the
# noisiest there is: it is refused about once in thirty times.
HELD_BPB = SUSPICIOUS_GAIN_BPB / 4.0

FRESH_PAIRS = 2  # at each of two lengths
# The second length is secret, in shares of the length that was too good: a gain at a quarter of
# the horizon is tested with a somewhat longer run, one at all of it with a somewhat shorter one. A
# program that knows the length has its gain at that length alone.
LONGER, SHORTER = (1.2, 1.5), (0.65, 0.85)


def suspicion(verdicts: Iterable[Verdict]) -> Verdict | None:
    """Return the first verdict of a screen or race that saw too large a gain, if any did."""
    for verdict in verdicts:
        measured = verdict.stage in {Stage.SCREEN, Stage.RACE} and verdict.effect_bpb is not None
        if measured and (verdict.effect_bpb or 0.0) < -SUSPICIOUS_GAIN_BPB:
            return verdict
    return None


async def quarantine(
    bench: Bench, candidate: Program, reference: Program, suspect: Verdict
) -> Verdict:
    """Take a suspicious comparison again, on fresh seeds and at a second length.

    Args:
        bench: the means of judging.
        candidate: what was too good.
        reference: what it was compared with then.
        suspect: the verdict that said so.

    Raises:
        BudgetSpentError: a run could not be paid for.
    """
    is_race = suspect.stage == Stage.RACE
    steps = bench.steps if is_race else screen_steps(bench.steps)
    share = SHORTER if is_race else LONGER
    other = secret_steps(bench.run_seed, candidate.id, "quarantine", steps=steps, share=share)
    seeds = quarantine_seeds(bench.run_seed, candidate.id)
    same_length = Pairing(bench, candidate, reference, seeds)
    other_length = Pairing(bench, candidate, reference, seeds)
    try:
        await same_length.grow(FRESH_PAIRS, stage=Stage.QUARANTINE, steps=steps)
        await other_length.grow(FRESH_PAIRS, stage=Stage.QUARANTINE, steps=other)
    except PairingError as failure:
        finding = (Decided.REJECT, str(failure))
        comparison = Comparison(reference_id=reference.id)
        return conclude(bench, candidate, Stage.QUARANTINE, finding, comparison)
    elsewhere = fmean(other_length.differences)
    effect = paired_effect(same_length.differences + other_length.differences)
    has_held = effect.mean <= -HELD_BPB and elsewhere < 0.0
    reason = (
        f"{'held' if has_held else 'implausible'}: {suspect.effect_bpb:+.4f} bpb in the "
        f"{suspect.stage}, on fresh seeds {fmean(same_length.differences):+.4f}, and "
        f"{elsewhere:+.4f} in runs of {other} steps instead of {steps}"
    )
    finding = (Decided.PASS if has_held else Decided.REJECT, reason)
    taken = (*same_length.seeds, *other_length.seeds)
    comparison = Comparison(reference_id=reference.id, effect=effect, seeds=taken)
    return conclude(bench, candidate, Stage.QUARANTINE, finding, comparison)
