from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent.budget import Budget, BudgetSpentError, Meter
from agent.evaluations import Evaluator, SandboxError, Training
from agent.stage import Stage
from db.records import Evaluation, Program
from sandbox.jobs import Gradients, Job, Outcome, Status
from sandbox.source_form import digest
from tests.agent.fakes import SEED_SOURCE, FakePool, clock, outcome


class Sink:
    def __init__(self) -> None:
        self.evaluations: list[Evaluation] = []

    def add_evaluation(self, evaluation: Evaluation) -> None:
        self.evaluations.append(evaluation)


def evaluator(pool: FakePool, *, budget: int | None = None, sink: Sink | None = None) -> Evaluator:
    now = clock()
    meter = Meter(Budget(evaluations=budget, elapsed_s=None), clock=now)
    return Evaluator(pool, sink or Sink(), meter, clock=now)


def training(*, stage: Stage = Stage.RACE, seed: int = 7, **fields: Any) -> Training:
    program = Program(
        id=digest(SEED_SOURCE),
        ordinal=0,
        source=SEED_SOURCE,
        normalised="n",
        created_at=clock()(),
    )
    return Training(program=program, stage=stage, seed=seed, **({"steps": 40} | fields))


async def test_a_known_run_is_not_trained_again_for_another_stage() -> None:
    pool, sink = FakePool(), Sink()
    measuring = evaluator(pool, sink=sink)

    first = await measuring.measure(training(stage=Stage.RACE))
    second = await measuring.measure(training(stage=Stage.REPLICATE))

    assert first == second
    assert len(pool.jobs) == len(sink.evaluations) == 1


@pytest.mark.parametrize(
    "other",
    [
        training(seed=8),
        training(steps=10),
        training(horizon=41),
        training(gradients=Gradients.PERMUTED),
    ],
)
async def test_another_seed_length_horizon_or_gradient_is_another_run(other: Training) -> None:
    pool = FakePool()
    measuring = evaluator(pool)

    await measuring.measure(training())
    await measuring.measure(other)

    assert len(pool.jobs) == 2


@pytest.mark.parametrize("gradients", [Gradients.ZERO, Gradients.PERMUTED])
async def test_a_run_with_altered_gradients_is_no_score_even_after_a_restart(
    gradients: Gradients,
) -> None:
    """What was stored is all that is left when a run is resumed."""
    pool, sink = FakePool(), Sink()
    altered = training(gradients=gradients, evidence=True)
    found = await evaluator(pool, sink=sink).measure(altered)
    resumed = evaluator(pool)
    resumed.remember(sink.evaluations[0])

    plain = await resumed.measure(training())

    assert found.evidence is not None
    assert plain.bpb != found.bpb
    assert [job.gradients for job in pool.jobs] == [gradients, Gradients.TRUE]
    assert await resumed.measure(altered) == found
    assert len(pool.jobs) == 2


async def test_a_run_told_its_own_length_is_the_run_told_nothing() -> None:
    pool = FakePool()
    measuring = evaluator(pool)

    await measuring.measure(training(steps=40, horizon=40))
    await measuring.measure(training(steps=40))

    assert len(pool.jobs) == 1


async def test_two_candidates_share_a_run_that_is_under_way() -> None:
    pool = FakePool()
    measuring = evaluator(pool, budget=1)

    first, second = await asyncio.gather(
        measuring.measure(training()), measuring.measure(training())
    )

    assert first == second
    assert len(pool.jobs) == 1


async def test_a_waiter_that_is_cancelled_leaves_the_run_to_the_others() -> None:
    measuring = evaluator(FakePool())
    owner = asyncio.ensure_future(measuring.measure(training()))
    waiter = asyncio.ensure_future(measuring.measure(training()))
    await asyncio.sleep(0)

    waiter.cancel()

    assert (await owner).status is Status.OK
    assert waiter.cancelled()


async def test_everybody_waiting_learns_that_the_sandbox_failed() -> None:
    pool = FakePool(lambda _: outcome(Status.SANDBOX_ERROR, reason="no jail"))
    measuring = evaluator(pool)

    found = await asyncio.gather(
        measuring.measure(training()), measuring.measure(training()), return_exceptions=True
    )

    assert [type(error) for error in found] == [SandboxError, SandboxError]
    assert measuring.running == ()


async def test_nothing_is_trained_beyond_the_budget_but_what_is_known_is_free() -> None:
    measuring = evaluator(FakePool(), budget=1)
    await measuring.measure(training())

    with pytest.raises(BudgetSpentError):
        await measuring.measure(training(seed=8))
    assert (await measuring.measure(training())).bpb is not None


async def test_limits_follow_the_cost_of_the_seed_program() -> None:
    def slow(job: Job) -> Outcome:
        return outcome(bpb=2.0, fingerprint="f", jail_cpu_s=1.0 * job.steps, wall_s=30.0 * 40)

    pool = FakePool(slow)
    measuring = evaluator(pool)
    await measuring.measure(training(stage=Stage.BASELINE))
    await measuring.measure(training(seed=8))
    await measuring.measure(training(seed=9, steps=10))

    first, full, short = (job.limits for job in pool.jobs)
    assert first.cpu_s > 1000
    assert [full.cpu_s, full.wall_s] == pytest.approx([2.0 + 120.0, 60.0 + 12_000.0])
    assert [short.cpu_s, short.wall_s] == pytest.approx([2.0 + 30.0, 60.0 + 3_000.0])


async def test_a_cheap_baseline_leaves_short_runs_time_to_start() -> None:
    pool = FakePool()
    measuring = evaluator(pool)
    await measuring.measure(training(stage=Stage.BASELINE))
    await measuring.measure(training(seed=8))

    assert pool.jobs[1].limits.cpu_s > 2.0


async def test_a_forgotten_program_would_be_trained_again() -> None:
    pool = FakePool()
    measuring = evaluator(pool)
    await measuring.measure(training())

    measuring.forget(training().program.id)
    await measuring.measure(training())

    assert len(pool.jobs) == 2


async def test_what_is_under_way_can_be_seen() -> None:
    pool = FakePool()
    measuring = evaluator(pool)
    seen: list[int] = []
    pool.before_job = lambda _: seen.append(len(measuring.running))

    await measuring.measure(training())

    assert (seen, measuring.running) == ([1], ())
