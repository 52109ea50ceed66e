"""The five levels of a win, each with its evidence.

1. the evaluator separates good from bad: an edit that changes nothing scores the same to the last
   bit, learning rates far too small are seen to be worse;
2. the gate follows the training phase: held still, the program is worse;
3. the program beats the tuned baseline, each at its best learning rate: the claim;
4. so it does on text of another kind, at other lengths, over all swept learning rates;
5. so it does with other sizes of the model, at a cost within the guardrails.

A win stands at the highest level that held with all below it. The second is not asked of it:
a program without a gate can win, and so can one whose gate does nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agent.confirmation.findings import Findings, RatePoint, Standing, Tested
from agent.confirmation.measures import Costs, Stability, costs_of, stability_of
from agent.confirmation.plan import Part
from agent.duel import Duel, Ending
from agent.guardrails import Guardrails, Spent, breach
from agent.statistics.multiplicity import Claim, claim, paired_p_value
from agent.words import counted

__all__ = ["CLAIM_ALPHA", "Level", "claim_of", "levels_of", "reached"]

CLAIM_ALPHA = 0.01  # per run, over all of its confirmations
CONTROL_ALPHA = 0.01
LEAST_SEEDS = 3
GATE_ALPHA = 0.05
# Gradients are compared over all sealed runs: half a spike a run more is one in two runs.
MAX_EXTRA_SPIKES = 0.5

LENGTHS = (Part.HALF, Part.DOUBLE, Part.QUADRUPLE)
SIZES = (Part.SMALLER, Part.LARGER)
GATE_LEVEL = 2
MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level: what it asks, how it came out, and on what evidence."""

    number: int
    title: str
    standing: Standing
    evidence: tuple[str, ...]


def levels_of(findings: Findings, number: int, guardrails: Guardrails) -> tuple[Level, ...]:
    """Judge all levels by what was found so far.

    Args:
        findings: of the confirmation.
        number: which of its run's it is, counted from 1.
        guardrails: what a win may cost.
    """
    return (
        _evaluator(findings),
        _gate(findings),
        _baseline(findings, number),
        _elsewhere(findings),
        _scale(findings, guardrails),
    )


def reached(levels: Sequence[Level]) -> int:
    """Return the highest level that held with all below it, the gate's apart; 0 for none."""
    highest = 0
    for level in levels:
        if level.number == GATE_LEVEL:
            continue
        if level.standing is not Standing.HELD:
            break
        highest = level.number
    return highest


def claim_of(findings: Findings, number: int) -> Claim | None:
    """Judge whether the win may be claimed; None before all sealed pairs are there."""
    sealed = findings.sealed
    if sealed is None or not sealed.is_complete:
        return None
    return claim(sealed.differences, number=number, alpha=CLAIM_ALPHA)


def _evaluator(findings: Findings) -> Level:
    title = "the evaluator separates good from bad"
    neutral, bad = findings.neutral, findings.bad
    if neutral is None or bad is None:
        return Level(number=1, title=title, standing=Standing.NOT_TESTED, evidence=())
    is_same = neutral.is_same_behaviour and not any(neutral.differences)
    words = "the same score to the last bit" if is_same else "another score"
    seeds = counted(len(neutral.pairs), "seed")
    evidence = [f"an edit of the baseline that changes nothing: {words} on {seeds}"]
    separated, how = _separated(bad)
    evidence.append(f"the baseline at a sixteenth of its learning rates: {how}")
    standing = Standing.HELD if is_same and separated else Standing.FAILED
    return Level(number=1, title=title, standing=standing, evidence=tuple(evidence))


def _separated(bad: Duel) -> tuple[bool, str]:
    if bad.ending is Ending.FAILED:
        return True, bad.reason
    differences = bad.differences
    p = paired_p_value([-difference for difference in differences])
    mean = math.fsum(differences) / len(differences)
    return p <= CONTROL_ALPHA, f"{mean:+.4f} bpb over {len(differences)} pairs, p {p:.2g}"


def _gate(findings: Findings) -> Level:
    title = "the gate follows the training phase"
    if not findings.has_gate:
        why = "the program has no gate, or has it switched off"
        return Level(number=2, title=title, standing=Standing.NOT_APPLICABLE, evidence=(why,))
    test = findings.gate
    if test is None:
        return Level(number=2, title=title, standing=Standing.NOT_TESTED, evidence=())
    heard = ", ".join(f"{name.rpartition('gate_')[2]} {w:+.3g}" for name, w in test.gate.items())
    evidence = [f"the gate listens to {heard or 'nothing'}"]
    differences = test.duel.differences
    if test.duel.ending is Ending.FAILED or len(differences) < LEAST_SEEDS:
        evidence.append(f"with the gate held still: {test.duel.reason}")
        standing = Standing.FAILED
    else:
        p = paired_p_value(differences)
        mean = math.fsum(differences) / len(differences)
        evidence.append(
            f"gate listening minus gate held still: {mean:+.4f} bpb over {len(differences)} pairs, "
            f"p {p:.2g}"
        )
        standing = Standing.HELD if p <= GATE_ALPHA else Standing.FAILED
    return Level(number=2, title=title, standing=standing, evidence=tuple(evidence))


def _baseline(findings: Findings, number: int) -> Level:
    title = "it beats the tuned baseline, each at its best learning rate"
    sealed, judged = findings.sealed, claim_of(findings, number)
    if sealed is None:
        return Level(number=3, title=title, standing=Standing.NOT_TESTED, evidence=())
    both = (findings.of(Part.SEALED), findings.at_own_rates)
    evidence = [describe(tested) for tested in both if tested is not None]
    standing = Standing.FAILED if sealed.standing is Standing.FAILED else Standing.NOT_TESTED
    if judged is not None:
        words = "claimed" if judged.holds else "not claimed"
        evidence.append(
            f"{words}: p {judged.p:.2g}, level {judged.level:.2g} of this look, the run's "
            f"{_ordinal(judged.number)}; {CLAIM_ALPHA:g} over all looks of the run"
        )
        standing = Standing.HELD if judged.holds else Standing.FAILED
    rates = findings.rates
    if rates is not None:
        evidence.append(
            f"learning rates: the program's best of {len(rates.ours)} is its own x "
            f"{_place(rates.ours, rates.best_ours)}, the baseline's x "
            f"{_place(rates.theirs, rates.best_theirs)}"
        )
    return Level(number=3, title=title, standing=standing, evidence=tuple(evidence))


def _elsewhere(findings: Findings) -> Level:
    title = "it holds on other text, at other lengths and learning rates"
    sealed, rates = findings.sealed, findings.rates
    wanted = (Part.OTHER_TEXT, *LENGTHS)
    standings, evidence = _conditions(findings, wanted)
    ahead = sum(difference < 0.0 for difference in sealed.differences) if sealed else 0
    if sealed is not None:
        evidence.insert(0, f"ahead on {ahead} of {len(sealed.differences)} fresh seeds")
        standings.append(Standing.HELD if ahead >= LEAST_SEEDS else Standing.FAILED)
    if rates is not None and rates.standing is not Standing.NOT_APPLICABLE:
        mean = math.fsum(rates.differences) / len(rates.differences)
        evidence.append(
            f"at equal multiples of the learning rates, x {rates.ours[0].factor:g} to "
            f"{rates.ours[-1].factor:g}: {mean:+.4f} bpb over {len(rates.differences)} seeds, "
            f"p {rates.p:.2g}"
        )
        standings.append(rates.standing)
    return Level(number=4, title=title, standing=_all(standings), evidence=tuple(evidence))


def _scale(findings: Findings, guardrails: Guardrails) -> Level:
    title = "it holds at another scale, at acceptable cost"
    standings, evidence = _conditions(findings, SIZES)
    if all(standing is Standing.NOT_APPLICABLE for standing in standings):
        standings.append(Standing.NOT_TESTED)  # no size can be had, so nothing was shown
    sealed = findings.sealed
    if sealed is None or sealed.duel is None or not sealed.duel.pairs:
        return Level(number=5, title=title, standing=_all(standings), evidence=tuple(evidence))
    pairs = sealed.duel.pairs
    ours, theirs = [p.candidate for p in pairs], [p.incumbent for p in pairs]
    costs = costs_of(pairs, findings.stateless)
    evidence.append(_describe_costs(costs))
    broken = breach(
        guardrails,
        setbacks=sealed.differences,
        ours=[Spent(jail_cpu_s=r.jail_cpu_s, peak_memory_bytes=r.peak_memory_bytes) for r in ours],
        baseline=[
            Spent(jail_cpu_s=r.jail_cpu_s, peak_memory_bytes=r.peak_memory_bytes) for r in theirs
        ],
    )
    mine, other = stability_of(ours), stability_of(theirs)
    unstable = _unstable(mine, other)
    evidence.append(
        f"stability: {mine.failures} of {mine.runs} runs failed, {mine.non_finite} met numbers "
        f"that are not finite, {mine.spikes_per_run:.2f} gradient spikes a run "
        f"(baseline {other.spikes_per_run:.2f})"
    )
    evidence += [reason for reason in (broken, unstable) if reason]
    standings.append(Standing.FAILED if broken or unstable else Standing.HELD)
    return Level(number=5, title=title, standing=_all(standings), evidence=tuple(evidence))


def _conditions(findings: Findings, parts: Sequence[Part]) -> tuple[list[Standing], list[str]]:
    tested = [findings.of(part) for part in parts]
    standings = [Standing.NOT_TESTED if t is None else t.standing for t in tested]
    return standings, [describe(t) for t in tested if t is not None]


def _all(standings: Sequence[Standing]) -> Standing:
    """Join what a level needs all of; what cannot be tested here is not asked for."""
    asked = [standing for standing in standings if standing is not Standing.NOT_APPLICABLE]
    if Standing.FAILED in asked:
        return Standing.FAILED
    return Standing.NOT_TESTED if Standing.NOT_TESTED in asked else Standing.HELD


def describe(tested: Tested) -> str:
    """Say what a condition came to, in one line."""
    title, effect = tested.condition.title, tested.effect
    if tested.trouble:
        return f"{title}: not possible here, {tested.trouble}"
    if tested.duel is not None and tested.duel.ending is Ending.FAILED:
        return f"{title}: {tested.duel.reason}"
    if effect is None:
        return f"{title}: fewer than two pairs"
    p = "" if tested.p is None else f", p {tested.p:.2g}"
    of = "" if tested.is_complete else f" of {tested.condition.pairs}"
    return (
        f"{title}: {effect.mean:+.4f} bpb [{effect.low:+.4f}, {effect.high:+.4f}] over "
        f"{effect.pairs}{of} pairs{p}"
    )


def _describe_costs(costs: Costs) -> str:
    words = []
    if costs.cpu_ratio is not None:
        words.append(f"{costs.cpu_ratio:.2f} times the optimizer's CPU time")
    if costs.run_cpu_ratio is not None:
        words.append(f"{costs.run_cpu_ratio:.2f} times that of the whole run")
    if costs.state_bytes is not None and costs.baseline_state_bytes is not None:
        words.append(
            f"{costs.state_bytes / MEBIBYTE:.2f} MiB of state and workspace (baseline "
            f"{costs.baseline_state_bytes / MEBIBYTE:.2f})"
        )
    words.append(
        f"peak {costs.peak_bytes / MEBIBYTE:.0f} MiB (baseline "
        f"{costs.baseline_peak_bytes / MEBIBYTE:.0f})"
    )
    return "cost: " + ", ".join(words)


def _unstable(ours: Stability, theirs: Stability) -> str | None:
    if ours.failures > theirs.failures or ours.non_finite > theirs.non_finite:
        return (
            "guardrail: more runs failed, or met numbers that are not finite, than the baseline's"
        )
    if ours.spikes_per_run > theirs.spikes_per_run + MAX_EXTRA_SPIKES:
        return (
            f"guardrail: more than {MAX_EXTRA_SPIKES:g} gradient spikes a run beyond the baseline's"
        )
    return None


def _place(points: Sequence[RatePoint], best: RatePoint) -> str:
    """Name a multiple, and say where it lies at an edge, beyond which there may be a better."""
    is_edge = len(points) > 1 and best.factor in {points[0].factor, points[-1].factor}
    return f"{best.factor:g}" + (" (the edge of the sweep)" if is_edge else "")


def _ordinal(number: int) -> str:
    names = {1: "first", 2: "second", 3: "third"}
    return names.get(number, f"{number}th")
