"""State what a run's candidates amount to once it is considered how many there were.

The largest of many measured effects is too large on average, and among enough candidates some win
by luck. So beside every raw effect stands a shrunken one, estimated from all candidates that were
raced, and beside every promotion whether it would stand if the whole list were published:

* after the fact (e-BH) and at the time (e-LOND), with at most 5 % false discoveries expected among
  those that stand. Candidates that were never raced count with an e-value of 1.
* a promotion that does not stand is not thereby wrong. It is a step of a search, taken at an error
  of 5 % by candidate; a claim needs a confirmation.

Source: `agent.statistics.shrinkage` and `agent.statistics.multiplicity`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from agent.stage import Decided, Stage, Stopped
from agent.statistics.moderation import measure
from agent.statistics.multiplicity import e_bh, e_lond
from agent.statistics.paired_test import Design, Effect, decide
from agent.statistics.shrinkage import Shrunken, fit_prior, shrink
from db.records import Score, Verdict
from db.store import Store

__all__ = ["Standing", "Standings", "standings", "standings_of"]

LEAST_PAIRS = 2  # one difference has no spread
UNSOUND = frozenset({Stage.QUARANTINE, Stage.GATES})


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One candidate that was raced, against the champion of its time.

    Attributes:
        race: the verdict of its last race.
        differences: candidate minus that champion, over race and replication.
        shrunken: what to expect of it against that champion; None where no spread is known.
        level_bpb: its estimated effect against the seed program: that of its champion, plus this.
        log_e: logarithm of the e-value of race and replication together.
        is_promoted: whether it became champion.
        is_refused: whether gates, quarantine or guardrails refused it: its effect is no gain.
        holds_after: whether it is a discovery among all candidates of the run (e-BH).
        held_then: whether it was one when it was tested (e-LOND).
        cpu_ratio: its optimizer's CPU time in units of the seed program's; None if unknown.
    """

    race: Verdict
    differences: tuple[float, ...]
    shrunken: Shrunken | None
    level_bpb: float
    log_e: float
    is_promoted: bool
    is_refused: bool
    holds_after: bool
    held_then: bool
    cpu_ratio: float | None

    @property
    def raw_bpb(self) -> float:
        """The mean difference, as measured."""
        return fmean(self.differences)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standings:
    """All raced candidates of a run, in the order of their races, out of `candidates` in all.

    `best` is what to expect of the champion against the seed program: the shrunken effects of the
    champions on the way added up, their intervals by squares. None as long as nobody was promoted.
    """

    raced: tuple[Standing, ...]
    candidates: int
    best: Effect | None

    @property
    def promoted(self) -> tuple[Standing, ...]:
        """Those that became champion."""
        return tuple(standing for standing in self.raced if standing.is_promoted)

    @property
    def front(self) -> tuple[Standing, ...]:
        """Those that nobody, the seed program included, equals in effect at no more CPU time.

        Cheapest first; a cheap one may well be worse than the seed program. Who was refused is not
        among them.
        """
        priced = [s for s in self.raced if s.cpu_ratio is not None and not s.is_refused]
        found: list[Standing] = []
        for standing in sorted(priced, key=lambda s: (s.cpu_ratio or 0.0, s.level_bpb)):
            best = min((s.level_bpb for s in found), default=math.inf)
            if (standing.cpu_ratio or 0.0) >= 1.0:
                best = min(best, 0.0)
            if standing.level_bpb < best:
                found.append(standing)
        return tuple(found)


def standings(store: Store) -> Standings:
    """Work out the standings of a run from its database."""
    return standings_of(store.verdicts(), store.scores(), steps=int(store.run().facts["steps"]))


def standings_of(verdicts: Sequence[Verdict], scores: Sequence[Score], *, steps: int) -> Standings:
    """Work out the standings of a run from its records, in the order they were made.

    Args:
        verdicts: all of them.
        scores: those of all training runs.
        steps: the full horizon.
    """
    runs = {
        (score.program_id, score.seed): score
        for score in scores
        if score.steps == score.horizon == steps and score.gradients == "true"
    }
    cases = _cases(verdicts, runs)
    shrunken = _shrunken([case.differences for case in cases.values() if case.differences])
    tested = _in_order_of_test(verdicts)
    log_e = [cases[program].log_e if program in cases else 0.0 for program in tested]
    after = dict(zip(tested, e_bh(log_e), strict=True))
    then = dict(zip(tested, e_lond(log_e), strict=True))
    prices, refused = _prices(verdicts, runs), _refused(verdicts)
    levels: dict[str, float] = {}
    raced = []
    for program, case in cases.items():
        if not case.differences:
            continue
        estimate = shrunken.get(case.differences)
        gain = estimate.mean if estimate else fmean(case.differences)
        levels[program] = levels.get(case.race.reference_id or "", 0.0) + gain
        raced.append(
            Standing(
                race=case.race,
                differences=case.differences,
                shrunken=estimate,
                level_bpb=levels[program],
                log_e=case.log_e,
                is_promoted=case.is_promoted,
                is_refused=program in refused,
                holds_after=after[program],
                held_then=then[program],
                cpu_ratio=prices.get(program),
            )
        )
    return Standings(raced=tuple(raced), candidates=len(tested), best=_added_up(raced))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """What the verdicts and scores say of one candidate."""

    race: Verdict
    differences: tuple[float, ...]
    log_e: float
    is_promoted: bool


def _cases(verdicts: Sequence[Verdict], runs: Mapping[tuple[str, int], Score]) -> dict[str, _Case]:
    """Return every raced candidate, by the order of their last races."""
    last: dict[str, Verdict] = {}
    replicated: dict[str, Verdict] = {}
    for verdict in verdicts:
        if verdict.stage == Stage.RACE and verdict.effect_bpb is not None:
            last.pop(verdict.program_id, None)  # to its new place
            last[verdict.program_id] = verdict
        if verdict.stage == Stage.REPLICATE:
            replicated[verdict.program_id] = verdict
    return {program: _case(race, replicated.get(program), runs) for program, race in last.items()}


def _case(
    race: Verdict, replication: Verdict | None, runs: Mapping[tuple[str, int], Score]
) -> _Case:
    tests = [race]
    if replication is not None and replication.reference_id == race.reference_id:
        tests.append(replication)
    each = [_differences(verdict, runs) for verdict in tests]
    pairs = zip(tests, each, strict=True)
    return _Case(
        race=race,
        differences=tuple(difference for found in each for difference in found),
        log_e=math.fsum(_log_e(verdict, found) for verdict, found in pairs),
        is_promoted=replication is not None and replication.decision == Decided.PROMOTE,
    )


def _differences(verdict: Verdict, runs: Mapping[tuple[str, int], Score]) -> tuple[float, ...]:
    pairs = [
        (runs.get((verdict.program_id, seed)), runs.get((verdict.reference_id or "", seed)))
        for seed in verdict.seeds
    ]
    return tuple(ours.bpb - theirs.bpb for ours, theirs in pairs if ours and theirs)


def _log_e(verdict: Verdict, differences: tuple[float, ...]) -> float:
    """Return what was recorded, or what the pairs of an older run come to.

    An e-value holds whenever one stops, so also for pairs that another test collected.
    """
    if verdict.log_e is not None:
        return verdict.log_e
    if not differences:
        return 0.0
    return decide(differences, Design(max_pairs=max(len(differences), Design().max_pairs))).log_e


def _refused(verdicts: Sequence[Verdict]) -> set[str]:
    """Return the programs whose scores were not what they seemed, or cost too much."""
    return {
        verdict.program_id
        for verdict in verdicts
        if verdict.stopped == Stopped.GUARDRAIL
        or (verdict.decision == Decided.REJECT and verdict.stage in UNSOUND)
    }


def _in_order_of_test(verdicts: Sequence[Verdict]) -> list[str]:
    """Return every candidate of the run where its last race was, or else its first verdict."""
    order: dict[str, None] = {}
    for verdict in verdicts:
        if verdict.ordinal == 0:
            continue  # the seed program is nobody's candidate
        if verdict.stage == Stage.RACE:
            order.pop(verdict.program_id, None)
        order.setdefault(verdict.program_id, None)
    return list(order)


def _shrunken(comparisons: Sequence[tuple[float, ...]]) -> dict[tuple[float, ...], Shrunken]:
    """Shrink the effects of all candidates with two pairs or more, by their differences."""
    known = [found for found in comparisons if len(found) >= LEAST_PAIRS]
    if not any(len(set(found)) > 1 for found in known):
        return {}
    measured = measure(known)
    prior = fit_prior(measured)
    return {found: shrink(each, prior) for found, each in zip(known, measured, strict=True)}


def _prices(verdicts: Sequence[Verdict], runs: Mapping[tuple[str, int], Score]) -> dict[str, float]:
    """Return every program's mean CPU time over its full runs, by the seed program's."""
    times: dict[str, list[float]] = {}
    for score in runs.values():
        times.setdefault(score.program_id, []).append(score.jail_cpu_s)
    seed_id = next((verdict.program_id for verdict in verdicts if verdict.ordinal == 0), "")
    usual = fmean(times.get(seed_id, [0.0]))
    return {program: fmean(each) / usual for program, each in times.items()} if usual else {}


def _added_up(raced: Sequence[Standing]) -> Effect | None:
    """Add up the effects of the champions on the way; each was measured on seeds of its own."""
    on_the_way = [standing for standing in raced if standing.is_promoted]
    steps = [standing.shrunken for standing in on_the_way if standing.shrunken is not None]
    if not steps:
        return None
    mean = math.fsum(step.mean for step in steps)
    return Effect(
        mean=mean,
        low=mean - math.hypot(*(step.mean - step.low for step in steps)),
        high=mean + math.hypot(*(step.high - step.mean for step in steps)),
        pairs=sum(len(standing.differences) for standing in on_the_way),
    )
