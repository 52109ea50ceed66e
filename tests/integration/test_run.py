"""Whole runs of `python -m agent.run` with real workers and jails, on the `micro` profile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from db.store import Store
from tests.agent.lineages import lineage_of

pytestmark = pytest.mark.slow

TIMEOUT_S = 300.0
EVALUATIONS = 9


def started(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "agent.run", *words]
    return subprocess.Popen(  # noqa: S603 - our own command
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "120"},
    )


def finished(*words: str) -> tuple[int, str, str]:
    process = started(*words)
    out, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, out, err


def new_run(runs: Path) -> tuple[str, ...]:
    return (
        *("--profile", "micro", "--workers", "1", "--runs-dir", str(runs)),
        *("--budget-evals", str(EVALUATIONS)),
    )


def signalled(runs: Path, number: signal.Signals) -> int:
    """Start a run, send it a signal once it has tried its first candidate, return its exit code."""
    process = started(*new_run(runs))
    assert process.stderr is not None
    for line in process.stderr:  # log lines, as there is no terminal
        if "#1 " in line:
            process.send_signal(number)
            break
    process.communicate(timeout=TIMEOUT_S)
    return process.returncode


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """An undisturbed run: its folder, its output and its log."""
    runs = tmp_path_factory.mktemp("runs")
    code, out, err = finished(*new_run(runs))
    assert code == 0, err
    return next(runs.iterdir()), out, err


def test_a_run_ends_with_an_honest_summary_and_what_to_type_next(
    whole: tuple[Path, str, str],
) -> None:
    folder, out, _ = whole

    assert "the budget is spent" in out
    assert ("No improvement found." in out) != ("Best program" in out)
    assert f"python -m agent.inspect {folder}" in out
    for name in ("best.py", "lineage.db", "programs.git", "run.log", "settings.toml"):
        assert (folder / name).exists()


def test_without_a_terminal_decisions_are_log_lines(whole: tuple[Path, str, str]) -> None:
    folder, _, log = whole

    assert "#0 baseline promote: seed program" in log
    assert "#0 baseline promote: seed program" in (folder / "run.log").read_text(encoding="utf-8")


def test_every_training_run_says_at_which_sandbox_level_it_ran(
    whole: tuple[Path, str, str],
) -> None:
    with Store.open(whole[0], exclusive=False) as store:
        evaluations = store.evaluations()

    assert len(evaluations) == EVALUATIONS
    assert all(e.sandbox_level >= 2 and not e.unsafe for e in evaluations)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupt", "kill"])
def test_an_interrupted_run_resumes_to_the_lineage_of_an_undisturbed_one(
    whole: tuple[Path, str, str], tmp_path: Path, number: signal.Signals
) -> None:
    code = signalled(tmp_path, number)
    assert code == (0 if number is signal.SIGINT else -signal.SIGKILL)

    code, _, err = finished("--resume", "latest", "--runs-dir", str(tmp_path))

    assert code == 0, err
    assert lineage_of(next(tmp_path.iterdir())) == lineage_of(whole[0])


def test_a_missing_corpus_is_refused_and_leaves_no_run_behind(tmp_path: Path) -> None:
    runs = tmp_path / "runs"

    code, _, err = finished(*new_run(runs), "--data", str(tmp_path / "none.txt"))

    assert code == 2
    assert "none.txt" in err
    assert list(runs.iterdir()) == []
