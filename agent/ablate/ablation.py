"""Leave every part of a winner out once, then all that do nothing, and test what remains.

Parts are judged one at a time against the whole winner. What can go one by one need not be able to
go together, so the minimal program meets the winner again on fresh seeds; where it is not shown to
be as good, the part whose absence cost most comes back and the test is repeated, at most three
times, each with a third of the error. A part that fails to run without another one is tried again
once that one is gone, and goes if leaving it out then changes nothing to the last bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from agent.ablate.equivalence import Equivalence, Use, use_of
from agent.ablate.parts import Anatomy, Part
from agent.duel import Contender, Course, Duel, Matchup, run_duel
from agent.evaluations import EvaluatorPool
from agent.seeds import pair_seeds
from agent.statistics.paired_test import DecisionKind
from sandbox.line_error import LineError

__all__ = ["Ablation", "Attempt", "Finding", "Setup", "WinnerFailsError", "ablate"]

ATTEMPTS = 3
SAME_SEEDS = 3

Refusal = Callable[[str], Awaitable[str | None]]


class WinnerFailsError(Exception):
    """The winner itself does not train."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How parts are judged.

    Attributes:
        test: whether the program can do without something.
        course: how every run is trained.
        seed: all seeds are drawn from it.
        purpose: so that no other comparison draws the same seeds.
        refusal: says why a program may not run, None if it may.
        slots: how many runs may be under way at the same time.
    """

    test: Equivalence
    course: Course
    seed: int
    purpose: str
    refusal: Refusal
    slots: int = 1

    def seeds(self, what: str, count: int) -> list[int]:
        """Return the seeds of one comparison."""
        return list(itertools.islice(pair_seeds(self.seed, f"{self.purpose} {what}"), count))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one part does. `duel` is the winner without it against the winner, if both ran."""

    part: Part
    use: Use
    reason: str
    duel: Duel | None = None

    @property
    def cost_bpb(self) -> float:
        """What being without it costs."""
        effect = None if self.duel is None else self.duel.effect
        return 0.0 if effect is None else effect.mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A smaller program against the winner, on fresh seeds."""

    dropped: frozenset[int]
    is_as_good: bool
    reason: str
    duel: Duel | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """What is known of a winner's parts, finished or not."""

    anatomy: Anatomy
    findings: tuple[Finding, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    is_finished: bool = False

    @property
    def dropped(self) -> frozenset[int]:
        """The parts that the minimal program does without; none until that was tested."""
        passed = [attempt.dropped for attempt in self.attempts if attempt.is_as_good]
        return passed[-1] if passed else frozenset()

    @property
    def minimal(self) -> str:
        """The smallest program that was shown to be as good: the winner, if no other."""
        return self.anatomy.without(self.dropped)


async def ablate(
    pool: EvaluatorPool,
    ablation: Ablation,
    setup: Setup,
    watch: Callable[[Ablation], None] = lambda _: None,
) -> Ablation:
    """Judge every part of an anatomy, and the program without those that do nothing.

    Args:
        pool: the workers.
        ablation: a new one.
        setup: how.
        watch: told what is known after every part and every attempt.

    Raises:
        WinnerFailsError: the winner fails on a seed.
        SandboxError: the sandbox failed.
        PoolError: no worker can be had any more.
    """
    for part in ablation.anatomy.parts:
        found = await _judged(pool, ablation.anatomy, part, setup)
        ablation = replace(ablation, findings=(*ablation.findings, found))
        watch(ablation)
    findings = ablation.findings
    dropped = frozenset(f.part.number for f in findings if f.use.is_droppable)
    while dropped and len(ablation.attempts) < ATTEMPTS:
        swept = await _swept(pool, ablation, dropped, setup)
        attempt = await _attempted(pool, ablation, swept, setup)
        ablation = replace(ablation, attempts=(*ablation.attempts, attempt))
        watch(ablation)
        if attempt.is_as_good:
            break
        dropped -= {max(dropped, key=lambda number: findings[number].cost_bpb)}
    ablation = replace(ablation, is_finished=True)
    watch(ablation)
    return ablation


async def _judged(pool: EvaluatorPool, anatomy: Anatomy, part: Part, setup: Setup) -> Finding:
    source, refused = await _reduced(anatomy, frozenset({part.number}), setup)
    if refused:
        return Finding(part=part, use=Use.NEEDED, reason=f"refused without it: {refused}")
    seeds = setup.seeds("parts", setup.test.design.max_pairs)
    duel = await _against_winner(pool, anatomy, source, seeds, setup)
    if duel.failures:
        return Finding(part=part, use=Use.NEEDED, reason=duel.reason, duel=duel)
    use = Use.UNCLEAR
    if duel.effect is not None:
        use = use_of(duel.differences, duel.effect, setup.test)
    return Finding(part=part, use=use, reason=duel.reason, duel=duel)


async def _attempted(
    pool: EvaluatorPool, ablation: Ablation, dropped: frozenset[int], setup: Setup
) -> Attempt:
    """Test a program without several parts against the winner, on seeds that chose nothing."""
    anatomy = ablation.anatomy
    source, refused = await _reduced(anatomy, dropped, setup)
    if refused:
        return Attempt(dropped=dropped, is_as_good=False, reason=f"refused: {refused}")
    design = setup.test.design
    strict = replace(
        setup, test=replace(setup.test, design=replace(design, alpha=design.alpha / ATTEMPTS))
    )
    seeds = setup.seeds(f"attempt {len(ablation.attempts)}", design.max_pairs)
    duel = await _against_winner(pool, anatomy, source, seeds, strict)
    is_as_good = duel.decision is not None and duel.decision.kind is DecisionKind.ACCEPT
    return Attempt(
        dropped=dropped,
        is_as_good=is_as_good and not duel.failures,
        reason=duel.reason,
        duel=duel,
    )


async def _swept(
    pool: EvaluatorPool, ablation: Ablation, dropped: frozenset[int], setup: Setup
) -> frozenset[int]:
    """Add the parts that were needed only by those that go, and are dead without them."""
    needed = [f.part.number for f in ablation.findings if f.use is Use.NEEDED]
    for number in needed:
        source, refused = await _reduced(ablation.anatomy, dropped | {number}, setup)
        rest, rest_refused = await _reduced(ablation.anatomy, dropped, setup)
        if refused or rest_refused:
            continue
        duel = await run_duel(
            pool,
            Matchup(
                candidate=Contender(name="smaller", source=source),
                incumbent=Contender(name="small", source=rest),
                course=setup.course,
            ),
            setup.seeds("sweep", SAME_SEEDS),
            setup.test,
            slots=setup.slots,
        )
        if not duel.failures and duel.is_same_behaviour:
            dropped |= {number}
    return dropped


async def _against_winner(
    pool: EvaluatorPool, anatomy: Anatomy, source: str, seeds: list[int], setup: Setup
) -> Duel:
    winner = Contender(name="winner", source=anatomy.program)
    duel = await run_duel(
        pool,
        Matchup(
            candidate=Contender(name="smaller", source=source),
            incumbent=winner,
            course=setup.course,
        ),
        seeds,
        setup.test,
        slots=setup.slots,
    )
    failed = [failure for failure in duel.failures if failure.name == winner.name]
    if failed:
        raise WinnerFailsError(failed[0].describe())
    return duel


async def _reduced(
    anatomy: Anatomy, numbers: frozenset[int], setup: Setup
) -> tuple[str, str | None]:
    """Return the program without some parts, and why it may not run, if so."""
    try:
        source = anatomy.without(numbers)
    except LineError as error:
        return "", str(error)
    return source, await setup.refusal(source)
