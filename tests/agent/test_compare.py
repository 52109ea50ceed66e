"""The command `agent.compare` on a fake pool: what it says, what it refuses, how it ends."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent import compare, yardstick
from agent.compare_request import common_setting
from agent.session import create_run
from sandbox.baseline import shipped_program
from sandbox.jobs import Job, Outcome, Status, WorkerSpec
from sandbox.knobs import set_knobs
from tests.agent.fakes import (
    READY,
    SEED_SOURCE,
    FakePool,
    FullStream,
    StartingPool,
    clock,
    noise,
    outcome,
    scored,
    settings,
)

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")

BETTER = set_knobs(SEED_SOURCE, {"MUON.lr": 0.08})

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Two optimizer files, the first one better."""
    better, worse = tmp_path / "better.py", tmp_path / "worse.py"
    better.write_text(BETTER, encoding="utf-8")
    worse.write_text(SEED_SOURCE, encoding="utf-8")
    return str(better), str(worse)


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Invoke:
    """Return a function that runs the command on a pool: exit code, output, complaints."""
    monkeypatch.setattr(yardstick, "seed_program", lambda _profile: SEED_SOURCE)

    def invoked(*words: str, pool: FakePool | None = None) -> tuple[int, str, str]:
        specs: list[tuple[WorkerSpec, int]] = []

        def make_pool(spec: WorkerSpec, workers: int) -> FakePool:
            specs.append((spec, workers))
            return pool or StartingPool()

        monkeypatch.setattr(compare, "LocalPool", make_pool)
        result = CliRunner().invoke(compare.app, [*words, "--runs-dir", str(tmp_path / "runs")])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return invoked


def refused(invoke: Invoke, *words: str) -> str:
    code, output, complaint = invoke(*words)
    assert (code, output) == (2, ""), complaint
    assert complaint.startswith("error: ")
    assert complaint.count("\n") == 1, "one sentence"
    return complaint


def test_the_better_program_is_found_and_the_evidence_told(
    invoke: Invoke, files: tuple[str, str]
) -> None:
    code, output, progress = invoke(*files)

    assert code == 0
    assert "A is better than B" in output
    assert "better.py" in output
    assert "e-value" in output
    assert "1.00 times the CPU time" in output
    assert progress.startswith("pair 1, seed ")


def test_the_other_order_gives_the_other_answer(invoke: Invoke, files: tuple[str, str]) -> None:
    forth = json.loads(invoke(*files, "--json")[1])
    back = json.loads(invoke(*reversed(files), "--json")[1])

    assert (forth["verdict"], back["verdict"]) == ("a_better", "b_better")
    assert forth["difference_bpb"] == pytest.approx(-back["difference_bpb"])
    assert forth["log_e"] == pytest.approx(back["log_e"])


def test_a_program_and_itself_do_not_differ(invoke: Invoke, files: tuple[str, str]) -> None:
    code, output, _ = invoke(files[0], files[0])

    assert code == 0
    assert "no difference: A and B came to the very same weights on every seed" in output


def test_the_same_request_gives_the_same_answer_with_any_number_of_workers(
    invoke: Invoke, files: tuple[str, str]
) -> None:
    answers = [invoke(*files, "--json", "--workers", n)[1] for n in ("1", "2", "7")]

    assert answers[0] == answers[1] == answers[2]


def test_another_seed_runs_other_pairs(invoke: Invoke, files: tuple[str, str]) -> None:
    first, other = (json.loads(invoke(*files, "--json", "--seed", seed)[1]) for seed in ("1", "2"))

    assert not {r["seed"] for r in first["runs"]} & {r["seed"] for r in other["runs"]}


def test_every_field_of_the_json_is_documented(invoke: Invoke, files: tuple[str, str]) -> None:
    answer = json.loads(invoke(*files, "--json")[1])

    fields = {*answer, *answer["a"], *answer["test"], *answer["runs"][0], *answer["runs"][0]["a"]}
    assert [field for field in sorted(fields) if f"`{field}`" not in DOCUMENT] == []


def test_json_is_alone_on_standard_output_and_progress_on_standard_error(
    invoke: Invoke, files: tuple[str, str]
) -> None:
    _, output, progress = invoke(*files, "--json")

    answer = json.loads(output)
    assert progress.count("\n") == len(answer["runs"]) == answer["pairs"]


def test_a_failing_program_is_told_and_exits_with_1(invoke: Invoke, files: tuple[str, str]) -> None:
    def score(job: Job) -> Outcome:
        if "better" in job.source_name:
            return outcome(Status.NAN, reason="the loss of step 3 is not finite")
        return scored(job)

    code, output, _ = invoke(*files, pool=StartingPool(score))
    machine_code, machine, _ = invoke(*files, "--json", pool=StartingPool(score))

    assert (code, machine_code) == (1, 1)
    assert "none: A (better.py) failed" in output
    assert "nan: the loss of step 3 is not finite" in output
    answer = json.loads(machine)
    assert (answer["verdict"], answer["difference_bpb"], answer["pairs"]) == ("failed", None, 0)
    assert answer["a"]["mean_bpb"] is None


def test_a_failing_sandbox_exits_with_3_and_still_tells_the_pairs_it_had(
    invoke: Invoke, files: tuple[str, str]
) -> None:
    jobs: list[Job] = []

    def score(job: Job) -> Outcome:
        jobs.append(job)
        if len(jobs) > 5:
            return outcome(Status.SANDBOX_ERROR, reason="the zygote is gone")
        return scored(job)

    code, output, complaint = invoke(*files, pool=StartingPool(score))

    assert code == 3
    assert "stopped early: undecided after 2 pairs" in output
    assert complaint.splitlines()[-1] == "error: the zygote is gone"


def test_a_sandbox_that_fails_at_once_exits_with_3(invoke: Invoke, files: tuple[str, str]) -> None:
    pool = StartingPool(lambda _: outcome(Status.SANDBOX_ERROR, reason="no zygote"))

    assert invoke(*files, pool=pool) == (3, "", "error: no zygote\n")


def test_ctrl_c_ends_with_what_is_known(invoke: Invoke, files: tuple[str, str]) -> None:
    pool = StartingPool(lambda job: outcome(bpb=2.0 + 0.05 * noise(job.source, job.seed)))
    pool.before_job = lambda count: os.kill(os.getpid(), signal.SIGINT) if count == 6 else None

    code, output, _ = invoke(*files, "--json", pool=pool)

    answer = json.loads(output)
    assert code == 0
    assert (answer["verdict"], answer["ending"]) == ("undecided", "stopped")
    assert answer["pairs"] == 2
    assert answer["interval_bpb"] == [None, None]


def test_ctrl_c_before_the_first_pair_says_that_nothing_is_known(
    invoke: Invoke, files: tuple[str, str]
) -> None:
    pool = StartingPool()
    pool.before_job = lambda _: os.kill(os.getpid(), signal.SIGINT)

    code, output, complaint = invoke(*files, pool=pool)

    assert (code, output) == (0, "")
    assert complaint == "Stopped before the first pair was finished; nothing is known.\n"


def test_a_full_disk_behind_standard_output_exits_with_3(
    invoke: Invoke, files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = StartingPool()
    pool.before_job = lambda _: monkeypatch.setattr(sys, "stdout", FullStream())

    code, _, complaint = invoke(*files, pool=pool)

    assert code == 3
    assert "cannot write to standard output" in complaint


def test_runs_are_limited_by_a_multiple_of_what_the_tuned_optimizer_uses(
    invoke: Invoke, files: tuple[str, str]
) -> None:
    pool = StartingPool(lambda _: outcome(bpb=2.0, jail_cpu_s=0.5, wall_s=1.0))

    invoke(*files, pool=pool)

    first, *others = pool.jobs
    assert (first.steps, first.horizon, first.source) == (10, 40, SEED_SOURCE)
    assert {job.steps for job in others} == {40}
    assert {job.limits.cpu_s for job in others} == {10.0 + 30.0 * 2.0}
    assert all(job.limits.wall_s > job.limits.cpu_s for job in others)


def test_a_course_on_which_the_tuned_optimizer_fails_is_refused(
    invoke: Invoke, files: tuple[str, str]
) -> None:
    pool = StartingPool(lambda _: outcome(Status.CRASH, reason="HorizonError: too short"))

    code, _, complaint = invoke(*files, "--steps", "3", pool=pool)

    assert code == 2
    assert "does not train for 3 steps" in complaint


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pairs", "3"], "less than 5 pairs"),
        (["--alpha", "0"], "--alpha"),
        (["--alpha", "nan"], "--alpha"),
        (["--smallest", "-1"], "--smallest"),
        (["--smallest", "inf"], "--smallest"),
        (["--profile", "cpi"], "micro, cpu, gpu"),
        (["--split", "sealed"], "ledger"),
        (["--split", "train"], "search or ood"),
        (["--device", "tpu"], "--device"),
        (["--required-sandbox", "high"], "S0, S1"),
        (["--data", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_a_bad_value_is_refused(
    invoke: Invoke, files: tuple[str, str], words: list[str], message: str
) -> None:
    assert message in refused(invoke, *files, *words)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"def build_optimizer(params", "no Python program"),
        (b"import torch\n", "build_optimizer(params, horizon)"),
        (b"\xff\xfe", "UTF-8"),
        (b"x = " + b"(" * 100_000, "no Python program"),
    ],
)
def test_a_file_that_is_no_program_is_refused(
    invoke: Invoke, files: tuple[str, str], tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "odd.py"
    file.write_bytes(content)

    assert message in refused(invoke, str(file), files[1])
    assert message in refused(invoke, files[1], str(file))


def test_a_missing_file_is_refused_with_what_could_be_given(
    invoke: Invoke, files: tuple[str, str]
) -> None:
    assert "reference:NAME" in refused(invoke, files[0], "nowhere.py")


def test_programs_of_runs_with_different_settings_are_refused_until_a_flag_says_which(
    invoke: Invoke, files: tuple[str, str], tmp_path: Path
) -> None:
    for name, profile in (("one", "micro"), ("two", "cpu")):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        create_run(folder, settings(profile=profile), READY, clock()).close()

    complaint = refused(invoke, "run:one/best", "run:two/best")

    assert "profile micro and cpu" in complaint
    assert "--profile" in complaint
    settled = refused(invoke, "run:one/best", "run:two/best", "--profile", "cpu")
    assert "no best program yet" in settled


def test_the_setting_of_a_run_is_the_default(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    create_run(folder, settings(profile="micro", device="cuda:1"), READY, clock()).close()
    given: dict[str, Any] = {"profile": None, "data": None, "device": None}

    ours = common_setting(given, ("run:one/best", "tuned"), tmp_path)
    told = common_setting(given | {"profile": "cpu"}, ("run:one/best",), tmp_path)
    none = common_setting(given, ("shipped", "tuned"), tmp_path)

    assert (ours["profile"], ours["device"]) == ("micro", "cuda:1")
    assert (told["profile"], told["device"]) == ("cpu", "cuda:1")
    assert (none["profile"], none["device"]) == ("cpu", "cpu")


def test_what_preflight_objects_to_is_a_note_and_no_refusal(
    invoke: Invoke, files: tuple[str, str], tmp_path: Path
) -> None:
    edit = tmp_path / "edit.py"
    edit.write_text(shipped_program().replace("import math\n", "import math\nimport socket\n", 1))

    code, output, _ = invoke(
        str(edit), files[1], pool=StartingPool(lambda _: outcome(bpb=2.0, fingerprint="f"))
    )

    assert code == 0
    assert "note: preflight would refuse A in a search, line" in output
    assert "socket" in output


def test_an_edit_with_shipped_knobs_is_told_of_the_tuned_ones_and_can_have_them(
    invoke: Invoke, files: tuple[str, str], tmp_path: Path
) -> None:
    edit = tmp_path / "edit.py"
    edit.write_text(shipped_program() + "\n# an edit\n")
    plain, tuned = (StartingPool(lambda _: outcome(bpb=2.0, fingerprint="f")) for _ in range(2))

    _, told, _ = invoke(str(edit), files[1], "--profile", "micro", pool=plain)
    _, silent, _ = invoke(str(edit), files[1], "--profile", "micro", "--tuned-knobs", pool=tuned)

    assert "knobs at the shipped defaults" in told
    assert "knobs at the shipped defaults" not in silent
    assert any("lr=0.07841" in job.source for job in tuned.jobs)
    assert not any("lr=0.07841" in job.source for job in plain.jobs)
    assert SEED_SOURCE in {job.source for job in tuned.jobs}, "no edit of the shipped file"


def test_what_a_program_wrote_is_shown_as_plain_text(
    invoke: Invoke, files: tuple[str, str]
) -> None:
    def score(job: Job) -> Outcome:
        if "better" in job.source_name:
            return outcome(Status.CRASH, reason="\x1b[2J[bold]ValueError[/bold]: mine")
        return scored(job)

    _, output, progress = invoke(*files, pool=StartingPool(score))

    assert "\x1b" not in output + progress
    assert "[bold]ValueError[/bold]: mine" in output
