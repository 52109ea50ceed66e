from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from agent.seeds import secret_steps
from agent.stages.gates.horizon import NEAR, horizon_gate
from agent.stages.smoke import SMOKE_STEPS
from sandbox.jobs import Job, Outcome, Status
from tests.agent.fakes import STEPS, FakePool, evidence, noise, outcome
from tests.agent.stages.cases import CANDIDATE, RUN_SEED, case

SECRET = secret_steps(RUN_SEED, CANDIDATE.id, "near horizon", steps=STEPS, share=NEAR)


def moving(scale: Callable[[int], float]) -> Callable[[Job], Outcome]:
    """Let every step be this much longer when told a horizon; a common factor of all weights."""

    def score(job: Job) -> Outcome:
        shown = evidence(job)
        assert shown is not None
        movement = tuple(
            (name, tuple(scale(job.total_steps) * x for x in numbers))
            for name, numbers in shown.movement
        )
        return outcome(bpb=3.0, fingerprint="f", evidence=replace(shown, movement=movement))

    return score


async def reason(scale: Callable[[int], float]) -> str | None:
    return await horizon_gate(case(FakePool(moving(scale))))


async def test_only_the_first_steps_of_four_horizons_are_trained() -> None:
    pool = FakePool(moving(lambda _: 1.0))

    assert await horizon_gate(case(pool)) is None
    assert [job.steps for job in pool.jobs] == [SMOKE_STEPS] * 4
    assert [job.horizon for job in pool.jobs] == [STEPS, STEPS - 1, STEPS + 1, SECRET]


async def test_a_schedule_over_the_whole_horizon_passes() -> None:
    assert await reason(lambda total: 1.0 - SMOKE_STEPS / total) is None


@pytest.mark.parametrize("factor", [1.25, 3.0])
async def test_a_test_for_the_horizon_itself_is_recognised(factor: float) -> None:
    found = await reason(lambda total: factor if total == STEPS else 1.0)

    assert found is not None
    assert found.startswith("recognises the horizon")
    assert f"{STEPS - 1} and {STEPS + 1}" in found


async def test_one_parameter_that_knows_the_horizon_is_enough() -> None:
    def score(job: Job) -> Outcome:
        shown = evidence(job)
        assert shown is not None
        knows = tuple(noise("knows", i) for i in range(32))
        movement = tuple(
            (name, knows if name == "wte" and job.total_steps == STEPS else numbers)
            for name, numbers in shown.movement
        )
        return outcome(bpb=3.0, fingerprint="f", evidence=replace(shown, movement=movement))

    found = await horizon_gate(case(FakePool(score)))

    assert found is not None
    assert found.startswith("recognises the horizon")


async def test_a_warm_up_of_whole_steps_may_jump_on_one_side() -> None:
    """int(.05 * total_steps) is 2 of 40 and 1 of 39."""
    assert await reason(lambda total: 1.0 if total >= STEPS else 2.0) is None


@pytest.mark.parametrize("side", [STEPS, STEPS + 1])
async def test_another_rule_beyond_some_horizon_is_recognised(side: int) -> None:
    found = await reason(lambda total: 5.0 if total >= side else 1.0)

    assert found is not None
    assert found.startswith("recognises the horizon")


async def test_a_range_around_the_horizon_is_recognised_from_outside_of_it() -> None:
    found = await reason(lambda total: 5.0 if abs(total - STEPS) <= 1 else 1.0)

    assert found is not None
    assert f"told {SECRET}" in found


async def test_a_program_that_only_runs_at_the_known_horizon_is_refused() -> None:
    def score(job: Job) -> Outcome:
        if job.total_steps != STEPS:
            return outcome(Status.CRASH, reason="line 3: ValueError: not 40")
        return moving(lambda _: 1.0)(job)

    found = await horizon_gate(case(FakePool(score)))

    assert found is not None
    assert found.startswith(f"horizon: fails if told {STEPS - 1} steps")


async def test_a_program_that_fails_at_once_is_refused_with_its_reason() -> None:
    pool = FakePool(lambda _: outcome(Status.CRASH, reason="line 3: no"))

    assert await horizon_gate(case(pool)) == "crash: line 3: no"
