"""The command `agent.tune` on a fake pool: what it says, keeps, refuses, and how it goes on."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent import yardstick
from agent.session import create_run
from agent.tune import __main__ as command
from sandbox.jobs import Job, Outcome, Status
from sandbox.knobs import read_knobs
from tests.agent.fakes import (
    READY,
    SEED_SOURCE,
    FakePool,
    FullStream,
    StartingPool,
    clock,
    outcome,
    settings,
)

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "tune.md").read_text(encoding="utf-8")

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def file(tmp_path: Path) -> str:
    """An optimizer file that can be tuned."""
    path = tmp_path / "mine.py"
    path.write_text(SEED_SOURCE, encoding="utf-8")
    return str(path)


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Invoke:
    """Return a function that runs the command on a pool: exit code, output, complaints."""
    monkeypatch.setattr(yardstick, "seed_program", lambda _profile: SEED_SOURCE)

    def invoked(*words: str, pool: FakePool | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr(command, "LocalPool", lambda _spec, _workers: pool or StartingPool())
        result = CliRunner().invoke(
            command.app,
            [*words, "--runs-dir", str(tmp_path / "runs"), "--out", str(tmp_path / "o")],
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return invoked


def test_tuned_values_are_told_and_written_as_a_program(
    invoke: Invoke, file: str, tmp_path: Path
) -> None:
    code, output, progress = invoke(file)

    best = (tmp_path / "o" / "best.py").read_text(encoding="utf-8")
    assert code == 0
    assert "the tuned values are better than the program's own" in output
    assert "the luckiest of many" in output
    assert "trial 0, the program's own values" in progress
    assert float(read_knobs(best)["MUON.lr"].value) == pytest.approx(0.1, rel=0.5)


def test_every_trial_is_a_line_of_the_record(invoke: Invoke, file: str, tmp_path: Path) -> None:
    invoke(file, "--trials", "12")

    lines = (tmp_path / "o" / "trials.jsonl").read_text(encoding="utf-8").splitlines()
    trials = [json.loads(line) for line in lines]
    assert [trial["number"] for trial in trials] == list(range(12))
    assert all(set(trial["values"]) == {"MUON.lr", "MUON.weight_decay"} for trial in trials)
    assert all(len(trial["bpb"]) == 2 for trial in trials)


def test_every_field_of_the_json_is_documented(invoke: Invoke, file: str) -> None:
    answer = json.loads(invoke(file, "--json", "--trials", "12")[1])

    fields = {*answer, *answer["runs"][0]}
    assert [field for field in sorted(fields) if f"`{field}`" not in DOCUMENT] == []


def test_a_tuning_that_was_stopped_goes_on_to_the_same_result(
    invoke: Invoke, file: str, tmp_path: Path
) -> None:
    whole = json.loads(invoke(file, "--json")[1])
    for name in ("runs.jsonl", "trials.jsonl"):
        (tmp_path / "o" / name).unlink()
    first, second = StartingPool(), StartingPool()
    first.before_job = lambda count: os.kill(os.getpid(), signal.SIGINT) if count == 50 else None

    code, output, complaint = invoke(file, "--json", pool=first)
    resumed = json.loads(invoke(file, "--json", pool=second)[1])

    assert code == 0
    assert json.loads(output)["finding"] == "unfinished"
    assert "the same command goes on from here" in complaint
    assert resumed == whole
    assert len(first.jobs) + len(second.jobs) <= 2 * 60 + 4 * 4 + 2 * 10 + 2 + 4


def test_a_program_that_fails_with_its_own_values_exits_with_1(invoke: Invoke, file: str) -> None:
    def score(job: Job) -> Outcome:
        is_yardstick = job.horizon is not None
        failed = outcome(Status.NAN, reason="the loss is not finite")
        return outcome(bpb=2.0) if is_yardstick else failed

    code, output, complaint = invoke(file, pool=StartingPool(score))

    assert (code, output) == (1, "")
    assert "fails with its own values (nan: the loss is not finite)" in complaint


def test_a_failing_sandbox_exits_with_3_and_tells_what_is_known(invoke: Invoke, file: str) -> None:
    jobs: list[Job] = []

    def score(job: Job) -> Outcome:
        jobs.append(job)
        if len(jobs) > 30:
            return outcome(Status.SANDBOX_ERROR, reason="the zygote is gone")
        return outcome(bpb=2.0)

    code, output, complaint = invoke(file, pool=StartingPool(score))

    assert code == 3
    assert "none yet" in output
    assert "none was ahead of the program's own values" in output
    assert "the zygote is gone" in complaint


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "SOAP.*"], "no knob to tune"),
        (["--pairs", "3"], "less than 5 pairs"),
        (["--profile", "cpi"], "micro, cpu, gpu"),
        (["--device", "tpu"], "--device"),
    ],
)
def test_a_bad_value_is_refused(invoke: Invoke, file: str, words: list[str], message: str) -> None:
    code, output, complaint = invoke(file, *words)

    assert (code, output) == (2, "")
    assert message in complaint
    assert complaint.count("\n") == 1, "one sentence"


def test_a_program_that_is_not_there_is_refused(invoke: Invoke) -> None:
    code, _, complaint = invoke("nowhere.py")

    assert code == 2
    assert "reference:NAME" in complaint


def test_a_run_stands_for_its_best_program_and_sets_the_profile(
    invoke: Invoke, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    create_run(folder, settings(profile="micro"), READY, clock()).close()

    code, _, complaint = invoke("one")

    assert command.program_name("one", tmp_path / "runs") == "run:one/best"
    assert code == 2
    assert "run:one/best: the run has no best program yet" in complaint


def test_records_of_another_setting_are_refused(invoke: Invoke, file: str) -> None:
    other = StartingPool()
    other.facts = {"device": "cuda"}
    invoke(file, "--trials", "5")

    code, _, complaint = invoke(file, "--trials", "5", pool=other)

    assert code == 2
    assert "cannot be compared" in complaint


def test_a_folder_that_cannot_be_made_is_refused(invoke: Invoke, file: str, tmp_path: Path) -> None:
    (tmp_path / "o").write_text("a file", encoding="utf-8")

    code, _, complaint = invoke(file)

    assert code == 2
    assert "choose another --out" in complaint


def test_a_full_disk_ends_a_tuning_in_one_sentence(
    invoke: Invoke, file: str, tmp_path: Path
) -> None:
    def fill_up(count: int) -> None:
        if count == 10:
            (tmp_path / "o" / "runs.jsonl").unlink()
            (tmp_path / "o" / "runs.jsonl").symlink_to("/dev/full")

    pool = StartingPool()
    pool.before_job = fill_up

    code, _, complaint = invoke(file, pool=pool)

    assert code == 3
    assert "runs.jsonl (No space left on device)" in complaint.splitlines()[-1]


def test_a_full_disk_behind_standard_output_exits_with_3(
    invoke: Invoke, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = StartingPool()
    pool.before_job = lambda _: monkeypatch.setattr(sys, "stdout", FullStream())

    code, _, complaint = invoke(file, "--trials", "5", pool=pool)

    assert code == 3
    assert "cannot write to standard output" in complaint
    assert (tmp_path / "o" / "best.py").is_file()
