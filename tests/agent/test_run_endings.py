"""How `python -m agent.run` ends when it is stopped, or its disk or output is lost on the way."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest
from typer.testing import CliRunner

from agent import run
from db.store import Store
from sandbox.jobs import WorkerSpec
from tests.agent.fakes import SEED_SOURCE, FakePool, FullStream, StartingPool

STOP_S = 30.0


class SignalledPool(StartingPool):
    """A pool whose start takes longer than anybody waits."""

    number = signal.SIGTERM

    async def __aenter__(self) -> Self:
        os.kill(os.getpid(), self.number)
        async with asyncio.timeout(STOP_S):
            await asyncio.Event().wait()
        return self


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[FakePool], tuple[int, str]]:
    """Return a function that runs the command on a pool and returns exit code and complaint."""

    def started(pool: FakePool) -> tuple[int, str]:
        def make_pool(_spec: WorkerSpec, _workers: int) -> FakePool:
            return pool

        monkeypatch.setattr(run, "LocalPool", make_pool)
        monkeypatch.setattr(run, "seed_program", lambda _profile: SEED_SOURCE)
        words = ["--profile", "micro", "--workers", "1", "--budget-evals", "5"]
        result = CliRunner().invoke(run.app, [*words, "--runs-dir", str(tmp_path)])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.exit_code, result.stderr.splitlines()[-1]

    return started


Start = Callable[[FakePool], tuple[int, str]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_stopped_while_workers_start_says_so_and_leaves_nothing(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    pool = SignalledPool()
    pool.number = number

    code, words = start(pool)

    assert (code, words) == (0, "Stopped before the search began; nothing was spent.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_stopped_while_it_searches_can_be_resumed(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    pool = StartingPool()
    pool.before_job = lambda count: os.kill(os.getpid(), number) if count == 1 else None

    code, _ = start(pool)

    assert code == 0
    with Store.open(next(tmp_path.iterdir())) as store:
        assert store.events()[-1].detail["message"] == "stopped on request"


def test_a_run_whose_disk_is_full_pauses_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.agent.full_disk_run", str(tmp_path)]

    ended = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - ours

    assert ended.returncode == 3, ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_run_that_cannot_print_its_summary_has_stored_its_work(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = StartingPool()
    full = FullStream()
    pool.before_job = lambda _: monkeypatch.setattr(sys, "stdout", full)

    code, words = start(pool)

    assert code == 1
    assert words.startswith("error: cannot write to standard output (No space left on device)")
    with Store.open(next(tmp_path.iterdir())) as store:
        assert len(store.evaluations()) == 5
