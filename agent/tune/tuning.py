"""Tune a program's knobs, and say what that was worth on seeds no trial has seen.

Three sets of seeds keep the winner's curse out of the result. Every trial is measured on the
search seeds, and the best of many is too good there. The few best and the program's own values
meet again on the choice seeds, where one of them is chosen. What is reported is the difference
between the chosen and the program's own values on a third set, which chose nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from agent.duel import Contender, Course, Duel, Matchup, run_duel
from agent.either_way import decide_either_way
from agent.evaluations import EvaluatorPool
from agent.seeds import pair_seeds
from agent.statistics.paired_test import Decision, DecisionKind, Design
from agent.tune.samplers import Method
from agent.tune.search import Plan, Trial, run_search, scores_of
from agent.tune.space import Space
from sandbox.jobs import Status
from sandbox.knobs import Value

__all__ = ["Budget", "OwnValuesFailError", "Tuning", "every_pair", "tune"]

FINALISTS = 3  # with more, the choice among them is a search again
OWN = 0  # the number of the trial with the program's own values


class OwnValuesFailError(Exception):
    """The program does not train with its own values, so there is nothing to compare with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a tuning may spend, the same for every program that is to be compared.

    Attributes:
        method: how points are chosen.
        trials: how many points are tried, the program's own values among them.
        search_seeds: how many seeds every point is tried on.
        choice_seeds: how many fresh seeds the finalists are chosen on.
        seed: everything is drawn from it.
        design: of the comparison at the end; its maximum of pairs is what is always measured.
    """

    method: Method
    trials: int
    search_seeds: int
    choice_seeds: int
    seed: int
    design: Design

    def plan(self, course: Course, slots: int) -> Plan:
        """Say how the trials are spent."""
        return Plan(
            method=self.method,
            trials=self.trials,
            seed=self.seed,
            seeds=self.seeds("tune search", self.search_seeds),
            course=course,
            slots=slots,
        )

    def seeds(self, purpose: str, count: int) -> tuple[int, ...]:
        """Return the seeds of one purpose."""
        return tuple(itertools.islice(pair_seeds(self.seed, purpose), count))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What is known of a tuning, finished or not.

    `chosen` is None until the finalists have met. `duel` is the chosen against the program's own
    values; None before its first pair, and where the own values were chosen.
    """

    name: str
    space: Space
    trials: tuple[Trial, ...] = ()
    chosen: Trial | None = None
    duel: Duel | None = None
    is_finished: bool = False

    @property
    def best(self) -> Trial:
        """The trial that did best in the search."""
        return min(self.trials, key=lambda trial: trial.loss)

    @property
    def search_gain_bpb(self) -> float:
        """What the best trial was ahead by in the search: a selected score, too good."""
        return self.trials[OWN].loss - self.best.loss

    @property
    def is_own(self) -> bool:
        """Whether nothing better than the program's own values was found."""
        return self.chosen is not None and self.chosen.number == OWN

    @property
    def values(self) -> Mapping[str, Value]:
        """The knobs to use, as far as it is known."""
        return (self.chosen or self.best).values

    @property
    def source(self) -> str:
        """The program with those knobs."""
        return self.space.program(self.values)


async def tune(
    pool: EvaluatorPool,
    tuning: Tuning,
    budget: Budget,
    course: Course,
    *,
    slots: int = 1,
    watch: Callable[[Tuning], None] = lambda _: None,
) -> Tuning:
    """Search, choose among the best on fresh seeds, and measure the choice on others.

    Args:
        pool: the workers.
        tuning: a new one, with the program's name and space.
        budget: what to spend.
        course: how every run is trained.
        slots: how many runs may be under way at the same time.
        watch: told what is known after every trial and every pair.

    Raises:
        OwnValuesFailError: the program fails with the knobs it came with.
        SandboxError: the sandbox failed.
        PoolError: no worker can be had any more.
    """

    def tell(now: Tuning) -> None:
        nonlocal tuning
        tuning = now
        watch(now)

    def add(trial: Trial) -> None:
        if trial.number == OWN and trial.reason:
            raise OwnValuesFailError(
                f"{tuning.name} fails with its own values ({trial.reason}): repair it first"
            )
        tell(replace(tuning, trials=(*tuning.trials, trial)))

    await run_search(pool, tuning.space, budget.plan(course, slots), add)
    chosen = await _choose(pool, tuning, budget, course, slots)
    tell(replace(tuning, chosen=chosen, is_finished=chosen.number == OWN))
    if tuning.is_own:
        return tuning
    own = Contender(name=f"{tuning.name}, own knobs", source=tuning.space.source)
    await run_duel(
        pool,
        Matchup(
            candidate=Contender(name=f"{tuning.name}, tuned", source=tuning.source),
            incumbent=own,
            course=course,
        ),
        budget.seeds("tune validation", budget.design.max_pairs),
        every_pair(budget.design),
        slots=slots,
        watch=lambda duel: tell(replace(tuning, duel=duel)),
    )
    tell(replace(tuning, is_finished=True))
    return tuning


def every_pair(design: Design) -> Callable[[Sequence[float]], Decision]:
    """Return the rule that measures all pairs of a design, however clear the first ones are.

    An estimate is wanted, and it should be as precise for one program as for another.
    """

    def rule(differences: Sequence[float]) -> Decision:
        decision = decide_either_way(differences, design)
        is_last = len(differences) == design.max_pairs
        return decision if is_last else replace(decision, kind=DecisionKind.CONTINUE)

    return rule


async def _choose(
    pool: EvaluatorPool, tuning: Tuning, budget: Budget, course: Course, slots: int
) -> Trial:
    """Return the trial that does best on the choice seeds; the own values win ties."""
    ranked = sorted(tuning.trials[1:], key=lambda trial: trial.loss)
    finalists = [tuning.trials[OWN], *(t for t in ranked[:FINALISTS] if not t.reason)]
    seeds = budget.seeds("tune choice", budget.choice_seeds)
    best, least = finalists[0], float("inf")
    for trial in finalists:
        contender = Contender(
            name=f"{tuning.name}, trial {trial.number}", source=tuning.space.program(trial.values)
        )
        outcomes = await scores_of(pool, contender, course, seeds, slots)
        if any(outcome.status is not Status.OK for outcome in outcomes):
            continue
        loss = fmean(outcome.bpb for outcome in outcomes if outcome.bpb is not None)
        if loss < least:
            best, least = trial, loss
    return best
