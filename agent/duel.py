"""Train two programs on the same seeds, pair by pair, until a test has decided between them.

Both halves of a pair begin with the same weights and see the same text; which of them is trained
first is drawn by lot from the seed, so that a machine that warms up or fills up favours neither.
With several workers pairs are trained at the same time, but the test sees them in the order of
their seeds, and what it has not seen when it stops is thrown away: a duel's result depends on the
programs, the seeds and the test alone.

A half that fails is a result. It ends the duel, since a failure has no score and no difference;
what both programs came to on that seed is kept.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from agent.evaluations import EvaluatorPool, SandboxError
from agent.statistics.paired_test import Decision, DecisionKind, Effect
from sandbox.jobs import Job, Limits, Outcome, Split, Status

__all__ = [
    "Contender",
    "Course",
    "Duel",
    "DuelError",
    "Ending",
    "Failure",
    "Matchup",
    "Pair",
    "Rule",
    "run_duel",
]

HALVES = 2

Rule = Callable[[Sequence[float]], Decision]


class DuelError(ValueError):
    """A duel was asked for that cannot be held; the message says what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One of the two programs: what to call it, and its full text."""

    name: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How every run of a duel is trained and validated.

    Schedules are laid out for `horizon` steps, of which the first `steps` are trained; without a
    horizon they are the same. The limits hold for both programs.
    """

    steps: int
    horizon: int | None = None
    split: Split = Split.SEARCH
    limits: Limits = field(default_factory=Limits)

    def job(self, contender: Contender, seed: int) -> Job:
        """Say what one run is."""
        return Job(
            source=contender.source,
            source_name=contender.name,
            seed=seed,
            steps=self.steps,
            horizon=self.horizon,
            split=self.split,
            limits=self.limits,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Matchup:
    """Who is compared with whom, and on what course."""

    candidate: Contender
    incumbent: Contender
    course: Course


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What both programs came to on one seed."""

    seed: int
    candidate: Outcome
    incumbent: Outcome

    @property
    def difference(self) -> float | None:
        """Candidate minus incumbent in bits per byte; None where either has no score."""
        if self.candidate.bpb is None or self.incumbent.bpb is None:
            return None
        return self.candidate.bpb - self.incumbent.bpb


class Ending(StrEnum):
    """Why a duel has no more pairs. `stopped` is for duels that somebody else brought to an end."""

    UNDER_WAY = "under_way"
    DECIDED = "decided"
    OUT_OF_SEEDS = "out_of_seeds"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One program's failure on one seed."""

    name: str
    seed: int
    outcome: Outcome

    def describe(self) -> str:
        """Say what happened, in one sentence without its full stop."""
        return (
            f"{self.name} failed on seed {self.seed}, {self.outcome.status}: {self.outcome.reason}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """What is known of two programs after some pairs, in the order of the seeds.

    `decision` is what the test said last; None as long as it has seen no difference.
    """

    matchup: Matchup
    pairs: tuple[Pair, ...] = ()
    decision: Decision | None = None
    ending: Ending = Ending.UNDER_WAY

    @property
    def differences(self) -> tuple[float, ...]:
        """Candidate minus incumbent of every pair that has a difference."""
        return tuple(p.difference for p in self.pairs if p.difference is not None)

    @property
    def effect(self) -> Effect | None:
        """The mean difference with its interval and the number of pairs; None without pairs."""
        return None if self.decision is None else self.decision.effect

    @property
    def log_e(self) -> float:
        """The logarithm of the test's e-value; 0, no evidence, without pairs."""
        return 0.0 if self.decision is None else self.decision.log_e

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Every run that has no score, the candidate's first."""
        names = self.matchup.candidate.name, self.matchup.incumbent.name
        return tuple(
            Failure(name=name, seed=pair.seed, outcome=outcome)
            for pair in self.pairs
            for name, outcome in zip(names, (pair.candidate, pair.incumbent), strict=True)
            if outcome.status is not Status.OK
        )

    @property
    def reason(self) -> str:
        """Why there are no more pairs, in one sentence without its full stop."""
        if self.ending is Ending.FAILED:
            return "; ".join(failure.describe() for failure in self.failures)
        words = "no pair was finished" if self.decision is None else self.decision.reason
        return f"stopped early: {words}" if self.ending is Ending.STOPPED else words

    @property
    def cpu_ratio(self) -> float | None:
        """CPU time of the candidate's optimizer over the incumbent's, over all whole pairs."""
        whole = [pair for pair in self.pairs if pair.difference is not None]
        theirs = sum(pair.incumbent.jail_cpu_s for pair in whole)
        return sum(pair.candidate.jail_cpu_s for pair in whole) / theirs if theirs > 0.0 else None

    @property
    def is_same_behaviour(self) -> bool:
        """Whether both programs came to the very same weights on every seed."""
        prints = [(p.candidate.fingerprint, p.incumbent.fingerprint) for p in self.pairs]
        return bool(prints) and all(ours == theirs is not None for ours, theirs in prints)


async def run_duel(
    pool: EvaluatorPool,
    matchup: Matchup,
    seeds: Sequence[int],
    rule: Rule,
    *,
    slots: int = 1,
    watch: Callable[[Duel], None] = lambda _: None,
) -> Duel:
    """Train pairs until the test has decided, a program has failed, or the seeds are used up.

    Args:
        pool: the workers.
        matchup: who is compared with whom, and on what course.
        seeds: of the pairs, in this order; no more of them than the test may see.
        rule: the test, asked after every pair about all differences so far.
        slots: how many runs may be under way at the same time.
        watch: told what is known after every pair; the last call has the result.

    Raises:
        DuelError: a seed is there twice, so that two pairs would be one, or there is none.
        SandboxError: the sandbox failed, and no program is to blame.
        PoolError: no worker can be had any more.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise DuelError(f"a duel needs seeds, each of them once, found {len(seeds)}: {list(seeds)}")
    duel = Duel(matchup=matchup)
    try:
        async with asyncio.TaskGroup() as group:
            training = _Training(pool, matchup, group, slots)
            upcoming = iter(seeds)
            for number in range(1, len(seeds) + 1):
                training.begin(upcoming)
                pair = await training.next_pair()
                duel = _with(duel, pair, rule, is_last=number == len(seeds))
                watch(duel)
                if duel.ending is not Ending.UNDER_WAY:
                    training.drop()
                    break
    except BaseExceptionGroup as errors:
        raise _first(errors) from errors
    return duel


class _Training:
    """Pairs under way, as many as the slots can hold."""

    def __init__(
        self, pool: EvaluatorPool, matchup: Matchup, group: asyncio.TaskGroup, slots: int
    ) -> None:
        self._pool = pool
        self._matchup = matchup
        self._group = group
        self._slots = asyncio.Semaphore(slots)
        # One pair more would keep a worker busy that has to wait for a slower one, and would be
        # thrown away, its workers with it, whenever the test stops.
        self._ahead = max(1, slots // HALVES)
        self._under_way: deque[asyncio.Task[Pair]] = deque()

    def begin(self, seeds: Iterator[int]) -> None:
        """Begin as many pairs as there is room for."""
        for seed in itertools.islice(seeds, self._ahead - len(self._under_way)):
            self._under_way.append(self._group.create_task(self._pair(seed)))

    async def next_pair(self) -> Pair:
        """Wait for the pair that was begun first."""
        return await self._under_way.popleft()

    def drop(self) -> None:
        """End what is under way."""
        for task in self._under_way:
            task.cancel()

    async def _pair(self, seed: int) -> Pair:
        sides = [self._matchup.candidate, self._matchup.incumbent]
        order = [0, 1]
        random.Random(seed).shuffle(order)  # noqa: S311 - drawing lots, not cryptography
        async with asyncio.TaskGroup() as halves:
            tasks = {side: halves.create_task(self._half(sides[side], seed)) for side in order}
        return Pair(seed=seed, candidate=tasks[0].result(), incumbent=tasks[1].result())

    async def _half(self, contender: Contender, seed: int) -> Outcome:
        async with self._slots:  # first come, first served
            outcome = await self._pool.run(self._matchup.course.job(contender, seed))
        if outcome.status is Status.SANDBOX_ERROR:
            raise SandboxError(outcome.reason)
        return outcome


def _with(duel: Duel, pair: Pair, rule: Rule, *, is_last: bool) -> Duel:
    """Add a pair and ask the test."""
    duel = replace(duel, pairs=(*duel.pairs, pair))
    if pair.difference is None:
        return replace(duel, ending=Ending.FAILED)
    decision = rule(duel.differences)
    ending = Ending.OUT_OF_SEEDS if is_last else Ending.UNDER_WAY
    if decision.kind is not DecisionKind.CONTINUE:
        ending = Ending.DECIDED
    return replace(duel, decision=decision, ending=ending)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error that tasks ended with: what one pair met, the others will meet."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
