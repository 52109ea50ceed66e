from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from db.store import DATABASE, Store, StoreError
from tests.db.builders import program, proposal, run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Store.create(tmp_path, run()) as store:
        store.add_proposal(proposal(), program())
    return tmp_path


@contextmanager
def writer(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that adds evaluations as fast as it can, killed at the end."""
    command = [sys.executable, "-m", "tests.db.evaluation_writer", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  # our own module
        try:
            yield process
        finally:
            process.kill()


def acknowledged(process: subprocess.Popen[str], count: int) -> list[int]:
    assert process.stdout is not None
    return [int(process.stdout.readline()) for _ in range(count)]


@pytest.mark.slow
def test_no_acknowledged_evaluation_is_lost_when_the_process_is_killed(folder: Path) -> None:
    rng = random.Random(0)  # noqa: S311  # chooses moments, not secrets
    for _ in range(5):
        with writer(folder) as process:
            acks = acknowledged(process, rng.randrange(1, 300))
            process.kill()
            assert process.stdout is not None
            lines = process.stdout.read().splitlines(keepends=True)
        acks += [int(line) for line in lines if line.endswith("\n")]

        with Store.open(folder) as store:
            stored = [evaluation.seed for evaluation in store.evaluations()]
        # The one being written may be in or out; nothing is there twice.
        assert stored in (list(range(acks[-1] + 1)), list(range(acks[-1] + 2)))
        with closing(sqlite3.connect(folder / DATABASE)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert database.execute("PRAGMA foreign_key_check").fetchall() == []


@pytest.mark.slow
def test_a_folder_is_locked_while_its_process_lives_and_free_once_it_is_killed(
    folder: Path,
) -> None:
    with writer(folder) as process:
        acknowledged(process, 1)
        with pytest.raises(StoreError, match=f"in use by process {process.pid}"):
            Store.open(folder)
        with Store.open(folder, exclusive=False) as reader:
            assert reader.evaluations()

    Store.open(folder).close()


def test_a_folder_is_locked_within_a_process_too(folder: Path) -> None:
    with Store.open(folder), pytest.raises(StoreError, match="in use"):
        Store.open(folder)


@pytest.mark.slow
def test_a_worker_that_outlives_a_killed_process_does_not_keep_the_lock(folder: Path) -> None:
    command = [sys.executable, "-m", "tests.db.lock_holder", str(folder)]
    with subprocess.Popen(  # noqa: S603  # our own module
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "worker started\n"
        process.kill()
        process.wait()

        Store.open(folder).close()

        assert process.stdin is not None
        process.stdin.write("end\n")
        process.stdin.close()
        assert process.stdout.readline() == "worker ended\n"  # so it was alive all the time
