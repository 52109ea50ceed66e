from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from sandbox.executor import LocalPool, WorkerRefused
from sandbox.jobs import Job, Limits, Status, WorkerSpec
from tests.sandbox.test_evaluator import ADAMW

MICRO = WorkerSpec(profile="micro")
SOURCE = ADAMW.replace("LR", "3e-3")


def _job(seed: int = 1, steps: int = 10, source: str = SOURCE) -> Job:
    return Job(source=source, seed=seed, steps=steps, limits=Limits(cpu_s=60, wall_s=120))


def _children_of(pid: int) -> set[int]:
    children = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended while we looked
        for task in Path(f"/proc/{pid}/task").iterdir():
            children |= {int(child) for child in (task / "children").read_text().split()}
    return children


def _descendants(pid: int) -> set[int]:
    found = set()
    waiting = [pid]
    while waiting:
        for child in _children_of(waiting.pop()):
            found.add(child)
            waiting.append(child)
    return found


def _is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def _environment_of(pid: int) -> bytes:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/environ").read_bytes()
    return b""


async def _until_it_trains(pool: LocalPool) -> None:
    async with asyncio.timeout(60):
        while not (pool.running() and pool.running()[0].step):  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.01)


async def test_jobs_run_at_the_same_time_and_repeat_to_the_bit() -> None:
    async with LocalPool(MICRO, workers=2) as pool:
        outcomes = await asyncio.gather(*(pool.run(_job(seed)) for seed in (1, 2, 1, 2)))

    assert [outcome.status for outcome in outcomes] == [Status.OK] * 4
    assert outcomes[0].bpb == outcomes[2].bpb
    assert outcomes[1].bpb == outcomes[3].bpb


async def test_a_killed_worker_is_replaced_and_its_job_repeated() -> None:
    others = _children_of(os.getpid())
    async with LocalPool(MICRO, workers=1) as pool:
        reference = await pool.run(_job(steps=300))
        running = asyncio.ensure_future(pool.run(_job(steps=300)))
        await _until_it_trains(pool)
        for child in _children_of(os.getpid()) - others:
            os.kill(child, signal.SIGKILL)

        outcome = await running

    assert outcome.status is Status.OK
    assert outcome.bpb == reference.bpb


async def test_leaving_the_pool_leaves_no_process() -> None:
    others = _descendants(os.getpid())
    async with LocalPool(MICRO, workers=2) as pool:
        running = asyncio.ensure_future(pool.run(_job(steps=5000)))
        await _until_it_trains(pool)
        descendants = _descendants(os.getpid()) - others
        assert len(descendants) >= 4  # two workers, two zygotes
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    async with asyncio.timeout(20):
        while any(_is_alive(pid) for pid in descendants):  # noqa: ASYNC110 - the kernel's
            await asyncio.sleep(0.02)


async def test_no_key_reaches_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    others = _descendants(os.getpid())
    async with LocalPool(MICRO, workers=1):
        environments = [_environment_of(pid) for pid in _descendants(os.getpid()) - others]

    assert len([environment for environment in environments if environment]) >= 2
    assert not any(b"canary" in environment for environment in environments)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (WorkerSpec(profile="micro", data_path="no/such/place"), "no/such/place"),
        (WorkerSpec(profile="micro", device="mps"), "mps"),
    ],
)
async def test_a_configuration_that_cannot_work_is_refused(spec: WorkerSpec, words: str) -> None:
    with pytest.raises(WorkerRefused, match=words):
        async with LocalPool(spec, workers=1):
            pass


async def test_an_unsafe_run_says_so_on_every_outcome() -> None:
    spec = WorkerSpec(profile="micro", required_level=4, unsafe=True)
    async with LocalPool(spec, workers=1) as pool:
        outcome = await pool.run(_job())

    assert outcome.unsafe
    assert outcome.status is Status.OK
