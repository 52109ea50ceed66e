"""Carry out a plan: controls, the sweep of learning rates, then one condition after another.

From the sweep on, both programs are at the learning rates each is best at; on sealed text the
program has to beat the baseline as it was tuned, too. Halves of a pair are
trained in an order drawn by lot (`agent.duel`); every run goes through the same workers and jails
as in a search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from agent.confirmation.bench import Bench, sweep
from agent.confirmation.findings import Findings, GateTest, Rates, Tested, count_pairs
from agent.confirmation.measures import STATELESS_PROGRAM
from agent.confirmation.plan import Condition, Part, Plan
from agent.confirmation.remembered_runs import RememberedRuns, RememberingPool
from agent.confirmation.variants import (
    gate_of,
    learning_rates,
    neutral_edit,
    with_gate_held,
    with_rates,
)
from agent.duel import Contender, Course, Duel, Matchup, run_duel
from agent.evaluations import EvaluatorPool
from agent.yardstick import UnfitCourseError, limits_for
from sandbox.executor import WorkerRefused
from sandbox.jobs import Split

__all__ = ["Campaign", "Entrants", "PoolMaker"]

# An optimizer this slow is known to be bad: at the horizon of any profile it hardly gets anywhere.
BAD_RATE = 1.0 / 16.0

# A sweep whose best is at its edge has not found the best: it goes on, to 8 times the rates and
# to an eighth of them.
MOST_EXTENSIONS = 4

PoolMaker = Callable[[int], AbstractAsyncContextManager[EvaluatorPool]]
"""Starts workers for models of a size, in doublings of the profile's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrants:
    """The text of the program and of the baseline it is confirmed against."""

    program: str
    baseline: str


class Campaign:
    """A confirmation under way.

    Args:
        plan: what to train.
        entrants: of which programs.
        seeds: of every part.
        runs: where finished runs are kept.
        slots: how many runs may be under way at the same time.

    Attributes:
        findings: what is known so far.
        now: what is being done, in a few words.
        pool: the workers in use; None before there are any.
    """

    def __init__(
        self,
        plan: Plan,
        entrants: Entrants,
        seeds: Mapping[Part, tuple[int, ...]],
        runs: RememberedRuns,
        slots: int,
    ) -> None:
        self.findings = Findings(plan=plan, has_gate=gate_of(entrants.program) is not None)
        self.now = "starting workers"
        self.pool: EvaluatorPool | None = None
        self._plan = plan
        self._entrants = entrants
        self._seeds = seeds
        self._runs = runs
        self._slots = slots

    async def run(
        self,
        first: EvaluatorPool,
        make_pool: PoolMaker,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Train whatever is not trained yet.

        Args:
            first: workers for models of the profile's own size.
            make_pool: starts workers for other sizes.
            note: told in a line what every part came to.

        Raises:
            UnfitCourseError: the tuned optimizer itself cannot be trained like this.
            SandboxError: the sandbox failed, and no program is to blame.
            PoolError: no worker can be had any more.
        """
        bench = await self._bench(first, 0)
        await self._control(bench)
        await self._sweep(bench)
        conditions = self._plan.conditions
        for condition in (c for c in conditions if c.size == 0):
            is_sealed = condition.part is Part.SEALED
            await (self._seal if is_sealed else self._test)(bench, condition)
            note(_line(self.findings.tested[-1]))
        await self._hold_gate(bench)
        for condition in (c for c in conditions if c.size != 0):
            await self._resize(condition, make_pool)
            note(_line(self.findings.tested[-1]))
        self.now = "done"

    async def _bench(self, pool: EvaluatorPool, size: int) -> Bench:
        """Find out what runs of this size may use."""
        self.now = "finding out how long a run takes"
        self.pool = remembering = RememberingPool(pool, self._runs, size)
        (seed,) = self._seeds[Part.YARDSTICK]
        steps = pool.ready.steps
        limits = await limits_for(remembering, steps=steps, seed=seed)
        return Bench(pool=remembering, steps=steps, limits=limits, slots=self._slots)

    async def _control(self, bench: Bench) -> None:
        """Ask the evaluator for what is known: nothing, and something bad."""
        self.now = "controls"
        (seed,) = self._seeds[Part.YARDSTICK]
        baseline, seeds = self._entrants.baseline, self._seeds[Part.CONTROL]
        stateless = Contender(name="stateless.py", source=STATELESS_PROGRAM)
        outcome = await bench.pool.run(bench.course().job(stateless, seed))
        self.findings = replace(self.findings, stateless=outcome)
        course = bench.course(split=Split.SEARCH)
        neutral = await self._duel(bench, neutral_edit(baseline), baseline, course, seeds)
        self.findings = replace(self.findings, neutral=neutral)
        bad = await self._duel(bench, with_rates(baseline, BAD_RATE), baseline, course, seeds)
        self.findings = replace(self.findings, bad=bad)

    async def _sweep(self, bench: Bench) -> None:
        """Train both programs at every multiple of their learning rates."""
        self.now = "learning rates"
        entrants, factors = self._entrants, self._plan.factors
        if not learning_rates(entrants.program) or not learning_rates(entrants.baseline):
            factors = (1.0,)
        rates = await self._rates(bench, factors)
        for _ in range(MOST_EXTENSIONS):
            further = rates.further_factors() if len(factors) > 1 else ()
            if not further:
                break
            rates = rates.joined(await self._rates(bench, further))
        self.findings = replace(self.findings, rates=rates)

    async def _rates(self, bench: Bench, factors: Sequence[float]) -> Rates:
        seeds, entrants = self._seeds[Part.RATES], self._entrants
        ours = await sweep(bench, entrants.program, factors, seeds)
        theirs = await sweep(bench, entrants.baseline, factors, seeds)
        return Rates(ours=ours, theirs=theirs)

    async def _seal(self, bench: Bench, condition: Condition) -> None:
        """Train the sealed pairs, against the baseline at its best rates and at its own."""
        self.now = condition.title
        rates = self._rates_found
        first = await self._compared(bench, condition, rates.best_theirs.source)
        own = None
        if rates.best_theirs.factor != 1.0:
            title = f"{condition.title}, the baseline at its own learning rates"
            condition = replace(condition, title=title)
            own = await self._compared(bench, condition, rates.own_theirs.source)
        # Both at once: a claim must not be made from the first alone.
        tested = (*self.findings.tested, first)
        self.findings = replace(self.findings, tested=tested, at_own_rates=own)

    async def _test(self, bench: Bench, condition: Condition) -> None:
        """Train the pairs of another condition, against the baseline that was harder to beat."""
        self.now = condition.title
        rates, sealed = self._rates_found, self.findings.sealed
        is_own = sealed is not None and sealed is self.findings.at_own_rates
        theirs = rates.own_theirs if is_own else rates.best_theirs
        tested = await self._compared(bench, condition, theirs.source)
        self.findings = replace(self.findings, tested=(*self.findings.tested, tested))

    async def _compared(self, bench: Bench, condition: Condition, baseline: str) -> Tested:
        course = bench.course(
            split=condition.split, steps=condition.steps(bench.steps), length=condition.length
        )
        program = self._rates_found.best_ours.source
        duel = await self._duel(bench, program, baseline, course, self._seeds[condition.part])
        return Tested(condition=condition, duel=duel)

    async def _resize(self, condition: Condition, make_pool: PoolMaker) -> None:
        """Do the same with workers for another size; a size that cannot be is no failure."""
        self.now = f"starting workers for {condition.title}"
        try:
            async with make_pool(condition.size) as pool:
                await self._test(await self._bench(pool, condition.size), condition)
        except (WorkerRefused, UnfitCourseError) as refusal:
            tested = Tested(condition=condition, trouble=str(refusal))
            self.findings = replace(self.findings, tested=(*self.findings.tested, tested))

    async def _hold_gate(self, bench: Bench) -> None:
        """Compare the program with itself, its gate made deaf."""
        gate = gate_of(self._entrants.program)
        if gate is None:
            return
        self.now = "the gate held still"
        source = self._rates_found.best_ours.source
        course = bench.course(split=Split.SEARCH)
        duel = await self._duel(
            bench, source, with_gate_held(source), course, self._seeds[Part.GATE]
        )
        self.findings = replace(self.findings, gate=GateTest(gate=gate, duel=duel))

    @property
    def _rates_found(self) -> Rates:
        if self.findings.rates is None:
            raise AssertionError("the sweep comes first")
        return self.findings.rates

    async def _duel(
        self, bench: Bench, program: str, baseline: str, course: Course, seeds: Sequence[int]
    ) -> Duel:
        matchup = Matchup(
            candidate=Contender(name="program.py", source=program),
            incumbent=Contender(name="baseline.py", source=baseline),
            course=course,
        )
        return await run_duel(bench.pool, matchup, seeds, count_pairs, slots=self._slots)


def _line(tested: Tested) -> str:
    """Say what a condition came to, in one line."""
    title = tested.condition.title
    if tested.trouble:
        return f"{title}: not possible, {tested.trouble}"
    if tested.duel is None or tested.duel.failures:
        return f"{title}: {tested.duel.reason if tested.duel else 'nothing was trained'}"
    effect = tested.effect
    words = "" if effect is None else f" {effect.mean:+.4f} [{effect.low:+.4f}, {effect.high:+.4f}]"
    return f"{title}:{words} bpb over {len(tested.differences)} pairs"
