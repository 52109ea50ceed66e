"""Every evaluator pool keeps the promises of `agent.evaluations.EvaluatorPool`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from agent.evaluations import EvaluatorPool
from sandbox.executor import LocalPool
from sandbox.jobs import Gradients, Job, Limits, Status, WorkerSpec
from tests.agent.fakes import SEED_SOURCE, FakePool

TWO_WORKERS = 2


@contextlib.asynccontextmanager
async def _fake() -> AsyncIterator[EvaluatorPool]:
    yield FakePool()


@contextlib.asynccontextmanager
async def _local() -> AsyncIterator[EvaluatorPool]:
    async with LocalPool(WorkerSpec(profile="micro"), workers=TWO_WORKERS) as pool:
        yield pool


MAKERS: dict[str, Callable[[], AbstractAsyncContextManager[EvaluatorPool]]] = {
    "fake": _fake,
    "local": _local,
}


def _job(seed: int, **fields: Any) -> Job:
    limits = Limits(cpu_s=60, wall_s=120)
    return Job(source=SEED_SOURCE, seed=seed, steps=10, limits=limits, **fields)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
async def test_a_pool_keeps_its_promises(
    make: Callable[[], AbstractAsyncContextManager[EvaluatorPool]],
) -> None:
    """One test for all of them, because starting real workers takes seconds."""
    async with make() as pool:
        seeds = [1, 2, 3, 1, 2, 3]  # more jobs than workers
        outcomes = await asyncio.gather(*(pool.run(_job(seed)) for seed in seeds))
        abandoned = asyncio.ensure_future(pool.run(_job(4)))
        await asyncio.sleep(0)
        abandoned.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await abandoned
        after = await pool.run(_job(1))
        shown = await pool.run(_job(1, evidence=True))
        unmoved = await pool.run(_job(1, evidence=True, gradients=Gradients.ZERO))

        assert len(outcomes) == len(seeds)
        assert all(outcome.status is Status.OK for outcome in outcomes)
        scores = [outcome.bpb for outcome in outcomes]
        assert scores[:3] == scores[3:]
        assert len(set(scores)) == 3
        assert after.bpb == scores[0]  # a cancelled job takes no worker with it
        assert after.evidence is None
        assert shown.bpb == after.bpb  # to be looked at changes nothing
        assert shown.evidence is not None
        assert all(any(numbers) for _, numbers in shown.evidence.movement)
        assert unmoved.evidence is not None  # plain descent stays where it is without gradients
        assert unmoved.bpb == unmoved.evidence.untrained_bpb == shown.evidence.untrained_bpb
        assert not any(any(numbers) for _, numbers in unmoved.evidence.movement)
        assert pool.running() == ()
        assert pool.ready.sandbox_level >= 2
