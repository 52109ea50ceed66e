"""Two programs on shared seeds: what is trained, in which order, and when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest

from agent.duel import Contender, Course, Duel, DuelError, Ending, Matchup, run_duel
from agent.evaluations import SandboxError
from agent.statistics.paired_test import Decision, DecisionKind, Design, Effect, decide
from sandbox.executor import PoolError
from sandbox.jobs import Job, Limits, Outcome, Split, Status
from tests.agent.fakes import FakePool, outcome

SEEDS = tuple(range(500, 530))
LIMITS = Limits(cpu_s=7.0)
COURSE = Course(steps=40, horizon=80, split=Split.OUT_OF_DISTRIBUTION, limits=LIMITS)
NEW, OLD = Contender(name="new.py", source="new"), Contender(name="old.py", source="old")
MATCHUP = Matchup(candidate=NEW, incumbent=OLD, course=COURSE)


def scored(job: Job) -> Outcome:
    """The candidate is about .01 ahead, by a little more or less on each seed."""
    wobble = (job.seed % 7) * 0.001
    bpb = 2.0 + 0.1 * (job.seed % 3) - (0.01 + wobble if job.source == "new" else 0.0)
    return outcome(bpb=bpb, fingerprint=job.source, jail_cpu_s=3.0 if job.source == "new" else 2.0)


def failing(source: str, seed: int, status: Status = Status.NAN) -> FakePool:
    def score(job: Job) -> Outcome:
        if (job.source, job.seed) == (source, seed):
            return outcome(status, reason="the loss of step 3 is not finite")
        return scored(job)

    return FakePool(score)


def shuffled(job: Job) -> int:
    return (job.seed * 7919 + (job.source == "new") * 104729) % 23


class ShufflingPool(FakePool):
    """Finishes runs in an order of its own, and notes how many are under way."""

    def __init__(self, naps: Callable[[Job], int] = shuffled) -> None:
        super().__init__(scored)
        self._naps = naps
        self.under_way = self.most = self.dropped = 0

    async def run(self, job: Job) -> Outcome:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            for _ in range(self._naps(job)):
                await asyncio.sleep(0)
            return await super().run(job)
        except asyncio.CancelledError:
            self.dropped += 1
            raise
        finally:
            self.under_way -= 1


def after(pairs: int) -> partial[Decision]:
    """A rule that accepts after so many pairs."""

    def rule(differences: Sequence[float], wanted: int) -> Decision:
        kind = DecisionKind.ACCEPT if len(differences) == wanted else DecisionKind.CONTINUE
        count = len(differences)
        effect = Effect(mean=sum(differences) / count, low=-1.0, high=1.0, pairs=count)
        return Decision(kind=kind, effect=effect, log_e=1.5, reason=f"{count} of {wanted}")

    return partial(rule, wanted=pairs)


async def test_both_halves_of_a_pair_are_the_same_run_of_two_programs() -> None:
    pool = FakePool(scored)

    await run_duel(pool, MATCHUP, SEEDS, after(3))

    assert {job.source_name for job in pool.jobs} == {"new.py", "old.py"}
    for seed in SEEDS[:3]:
        halves = [job for job in pool.jobs if job.seed == seed]
        assert sorted(job.source for job in halves) == ["new", "old"]
        for job in halves:
            assert replace(job, source="", source_name="") == Job(
                source="",
                source_name="",
                seed=seed,
                steps=40,
                horizon=80,
                split=Split.OUT_OF_DISTRIBUTION,
                limits=LIMITS,
            )


@pytest.mark.parametrize("slots", [1, 2])
async def test_up_to_two_slots_nothing_is_trained_that_the_test_does_not_see(slots: int) -> None:
    pool = FakePool(scored)

    duel = await run_duel(pool, MATCHUP, SEEDS, after(4), slots=slots)

    assert len(pool.jobs) == 8
    assert [pair.seed for pair in duel.pairs] == list(SEEDS[:4])
    assert (duel.ending, duel.reason, duel.log_e) == (Ending.DECIDED, "4 of 4", 1.5)


@pytest.mark.parametrize("slots", [2, 3, 8, 100])
async def test_the_result_does_not_depend_on_slots_or_on_who_finishes_first(slots: int) -> None:
    design = Design(smallest_gain_bpb=0.0)
    rule = partial(decide, design=design)

    alone = await run_duel(FakePool(scored), MATCHUP, SEEDS, rule)
    other = await run_duel(ShufflingPool(), MATCHUP, SEEDS, rule, slots=slots)

    assert alone == other
    assert alone.ending is Ending.DECIDED
    assert alone.effect is not None
    assert alone.effect.high < 0.0


async def test_slots_are_filled_and_never_exceeded_and_what_is_left_is_dropped() -> None:
    pool = ShufflingPool(naps=lambda job: 5 * (job.seed - SEEDS[0]))

    await run_duel(pool, MATCHUP, SEEDS, after(5), slots=6)

    assert pool.most == 6
    assert pool.under_way == 0
    assert pool.dropped == 4, "the halves of two pairs"


async def test_either_half_may_come_first_as_the_seed_says() -> None:
    first, again = FakePool(scored), FakePool(scored)

    await run_duel(first, MATCHUP, SEEDS, after(30))
    await run_duel(again, MATCHUP, SEEDS, after(30))

    begun = [job.source for job in first.jobs[::2]]
    assert begun == [job.source for job in again.jobs[::2]]
    assert 8 <= begun.count("new") <= 22  # fewer or more in 1 of 100 lots


async def test_a_program_can_be_compared_with_itself() -> None:
    matchup = Matchup(candidate=NEW, incumbent=NEW, course=COURSE)

    duel = await run_duel(FakePool(scored), matchup, SEEDS, after(3))

    assert duel.differences == (0.0, 0.0, 0.0)
    assert duel.is_same_behaviour


async def test_other_weights_on_one_seed_are_another_behaviour() -> None:
    def score(job: Job) -> Outcome:
        is_odd = job.seed == SEEDS[1] and job.source == "new"
        return outcome(bpb=2.0, fingerprint="odd" if is_odd else "even")

    duel = await run_duel(FakePool(score), MATCHUP, SEEDS, after(2))

    assert not duel.is_same_behaviour


@pytest.mark.parametrize("source", ["new", "old"])
async def test_a_failing_half_ends_the_duel_and_gives_no_difference(source: str) -> None:
    pool = failing(source, SEEDS[2])

    duel = await run_duel(pool, MATCHUP, SEEDS, after(9))

    assert duel.ending is Ending.FAILED
    assert [pair.difference is None for pair in duel.pairs] == [False, False, True]
    assert len(duel.differences) == 2
    assert len(pool.jobs) == 6
    assert duel.reason == (
        f"{source}.py failed on seed {SEEDS[2]}, nan: the loss of step 3 is not finite"
    )


async def test_a_failure_leaves_what_the_earlier_pairs_have_shown() -> None:
    duel = await run_duel(failing("new", SEEDS[2]), MATCHUP, SEEDS, after(9))

    assert duel.effect is not None
    assert duel.effect.pairs == 2
    assert duel.cpu_ratio == pytest.approx(1.5), "of whole pairs"


async def test_a_failure_on_a_seed_the_test_does_not_see_is_none() -> None:
    duel = await run_duel(failing("new", SEEDS[3]), MATCHUP, SEEDS, after(3), slots=8)

    assert duel.ending is Ending.DECIDED
    assert duel.failures == ()


async def test_when_both_fail_both_are_told() -> None:
    pool = FakePool(lambda job: outcome(Status.CRASH, reason=f"in {job.source}"))

    duel = await run_duel(pool, MATCHUP, SEEDS, after(3))

    assert [failure.name for failure in duel.failures] == ["new.py", "old.py"]
    assert duel.effect is None
    assert duel.cpu_ratio is None


async def test_a_failing_sandbox_is_nobodys_result() -> None:
    seen: list[Duel] = []

    with pytest.raises(SandboxError, match="not finite"):
        await run_duel(
            failing("new", SEEDS[2], Status.SANDBOX_ERROR),
            MATCHUP,
            SEEDS,
            after(9),
            watch=seen.append,
        )

    assert [len(duel.pairs) for duel in seen] == [1, 2]


async def test_a_pool_without_workers_ends_it_with_its_own_error() -> None:
    pool = FakePool(scored)

    def lost(_: int) -> None:
        raise PoolError("no worker")

    pool.before_job = lost

    with pytest.raises(PoolError, match="no worker"):
        await run_duel(pool, MATCHUP, SEEDS, after(3), slots=4)


async def test_it_ends_when_the_seeds_are_used_up() -> None:
    seen: list[Duel] = []

    duel = await run_duel(FakePool(scored), MATCHUP, SEEDS[:3], after(9), watch=seen.append)

    assert duel.ending is Ending.OUT_OF_SEEDS
    assert [len(known.pairs) for known in seen] == [1, 2, 3]
    assert seen[-1] is duel


@pytest.mark.parametrize("seeds", [(), (1, 2, 1)])
async def test_seeds_must_be_there_and_differ(seeds: tuple[int, ...]) -> None:
    with pytest.raises(DuelError):
        await run_duel(FakePool(scored), MATCHUP, seeds, after(2))


async def test_a_duel_that_is_cancelled_leaves_nothing_under_way() -> None:
    pool = ShufflingPool()
    task = asyncio.ensure_future(run_duel(pool, MATCHUP, SEEDS, after(30), slots=4))
    for _ in range(10):
        await asyncio.sleep(0)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert pool.under_way == 0
