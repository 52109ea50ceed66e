"""What runs of any program may use, told from a first part of a run of the tuned one."""

from __future__ import annotations

import pytest

from agent import yardstick
from agent.evaluations import SandboxError
from agent.yardstick import UnfitCourseError, limits_for
from sandbox.baseline import BaselineError
from sandbox.jobs import Status
from tests.agent.fakes import SEED_SOURCE, FakePool, outcome


@pytest.fixture(autouse=True)
def _small_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yardstick, "seed_program", lambda _profile: SEED_SOURCE)


@pytest.mark.parametrize(("steps", "trained"), [(400, 100), (40, 10), (3, 1), (1, 1)])
async def test_the_first_quarter_of_the_course_is_trained(steps: int, trained: int) -> None:
    pool = FakePool()

    await limits_for(pool, steps=steps, seed=5)

    assert [(job.steps, job.total_steps, job.seed) for job in pool.jobs] == [(trained, steps, 5)]


async def test_limits_grow_with_what_the_tuned_optimizer_uses() -> None:
    slow_pool = FakePool(lambda _: outcome(bpb=2.0, jail_cpu_s=1.0, wall_s=2.0))
    fast_pool = FakePool(lambda _: outcome(bpb=2.0, jail_cpu_s=0.1, wall_s=0.2))

    slow = await limits_for(slow_pool, steps=400, seed=1)
    fast = await limits_for(fast_pool, steps=400, seed=1)

    assert slow.cpu_s == pytest.approx(10.0 + 30.0 * 4.0)
    assert fast.cpu_s == pytest.approx(10.0 + 30.0 * 0.4)
    assert slow.wall_s > fast.wall_s > fast.cpu_s


async def test_a_failing_sandbox_is_no_fault_of_the_course() -> None:
    pool = FakePool(lambda _: outcome(Status.SANDBOX_ERROR, reason="no zygote"))

    with pytest.raises(SandboxError, match="no zygote"):
        await limits_for(pool, steps=40, seed=1)


async def test_a_course_nobody_can_be_expected_to_finish_is_unfit() -> None:
    pool = FakePool(lambda _: outcome(Status.CRASH, reason="HorizonError"))

    with pytest.raises(UnfitCourseError, match=r"40 steps.*HorizonError"):
        await limits_for(pool, steps=40, seed=1)


async def test_knobs_that_do_not_fit_make_the_course_unfit(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_profile: str) -> str:
        raise BaselineError("cannot use the tuned knobs")

    monkeypatch.setattr(yardstick, "seed_program", broken)

    with pytest.raises(UnfitCourseError, match="tuned knobs"):
        await limits_for(FakePool(), steps=40, seed=1)
