"""The command `agent.leaderboard`: the recorded table, and measuring one on a fake pool."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent import yardstick
from agent.compare_request import UsageError
from agent.leaderboard import __main__ as command
from agent.leaderboard import record
from agent.leaderboard.record import recorded
from agent.programs import NamedProgram, Origin, reference_names
from sandbox.jobs import Job, Outcome, Status
from sandbox.knobs import set_knobs
from tests.agent.fakes import SEED_SOURCE, FakePool, StartingPool, outcome, scored

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "leaderboard.md").read_text(encoding="utf-8")

SOURCES = {
    "tuned": set_knobs(SEED_SOURCE, {"MUON.lr": 0.1}),
    "reference:slow": set_knobs(SEED_SOURCE, {"MUON.lr": 0.001}),
    "reference:fair": set_knobs(SEED_SOURCE, {"MUON.lr": 0.05}),
    "mine.py": set_knobs(SEED_SOURCE, {"MUON.lr": 0.01}),
    "knobless.py": "def build_optimizer(params, horizon):\n    return None\n",
}

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Invoke:
    """Return a function that runs the command on a pool: exit code, output, complaints."""

    def found(name: str, *, profile: str, runs_dir: Path) -> NamedProgram:
        return NamedProgram(name=name, source=SOURCES[name], origin=Origin(is_own=False))

    monkeypatch.setattr(yardstick, "seed_program", lambda _profile: SEED_SOURCE)
    monkeypatch.setattr(command, "find_program", found)
    monkeypatch.setattr(command, "reference_names", lambda: ("slow", "fair"))

    def invoked(*words: str, pool: FakePool | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr(command, "LocalPool", lambda _spec, _workers: pool or StartingPool())
        places = ["--runs-dir", str(tmp_path / "runs"), "--out", str(tmp_path / "o")]
        result = CliRunner().invoke(command.app, [*words, *places])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return invoked


MEASURE = ("--measure", "--trials", "12", "--pairs", "8")


def test_the_recorded_table_of_micro_has_every_reference_and_the_command_that_made_it() -> None:
    board = recorded("micro")

    names = {entry.name for entry in board.entries}
    assert names == {"tuned"} | {f"reference:{name}" for name in reference_names()}
    assert board.settings["profile"] == "micro"
    assert board.command.startswith("python -m agent.leaderboard --measure --profile micro")
    assert all(len(entry.bpb) == len(board.seeds) == 20 for entry in board.entries)


def test_the_recorded_table_is_shown_without_training_anything() -> None:
    result = CliRunner().invoke(command.app, [])

    assert result.exit_code == 0
    assert "reference:soap" in result.stdout
    assert "Measured 20" in result.stdout


def test_every_program_is_tuned_with_the_same_budget_and_measured_on_the_same_seeds(
    invoke: Invoke,
) -> None:
    answer = json.loads(invoke(*MEASURE, "--json")[1])

    rows = {row["name"]: row for row in answer["standings"]}
    assert set(rows) == {"tuned", "reference:slow", "reference:fair"}
    assert answer["budget"]["trials"] == 12
    assert all(len(row["bpb"]) == len(answer["seeds"]) == 8 for row in rows.values())
    assert rows["reference:slow"]["mean_bpb"] < rows["reference:slow"]["own_mean_bpb"]
    assert rows["tuned"]["difference_bpb"] is None


def test_a_program_of_one_s_own_is_ranked_too_and_named_in_the_command(invoke: Invoke) -> None:
    code, output, _ = invoke(*MEASURE, "--program", "mine.py")

    assert code == 0
    assert "mine.py" in output
    assert "--pairs 8 --seed 1 --program mine.py" in output


def test_every_field_of_the_json_is_documented(invoke: Invoke) -> None:
    answer = json.loads(invoke(*MEASURE, "--json")[1])

    fields = {*answer, *answer["standings"][0]}
    assert [field for field in sorted(fields) if f"`{field}`" not in DOCUMENT] == []


def test_what_was_measured_can_be_shown_again(invoke: Invoke, tmp_path: Path) -> None:
    _, measured, _ = invoke(*MEASURE)

    code, shown, _ = invoke("--file", str(tmp_path / "o" / "leaderboard.json"))

    assert code == 0
    assert shown == measured


def test_a_measurement_that_was_stopped_goes_on_where_it_was(invoke: Invoke) -> None:
    first, second, whole = StartingPool(), StartingPool(), StartingPool()
    first.before_job = lambda count: os.kill(os.getpid(), signal.SIGINT) if count == 75 else None

    code, _, complaint = invoke(*MEASURE, pool=first)
    _, output, _ = invoke(*MEASURE, pool=second)
    again_code, again, _ = invoke(*MEASURE, pool=whole)

    assert (code, again_code) == (0, 0)
    assert "2 programs of 3 measured; the same command goes on from here" in complaint
    assert output == again
    assert len(whole.jobs) == 1, "the yardstick alone"
    # Both yardsticks, the anchor, two tunings, and the runs that Ctrl-C has broken off.
    assert len(first.jobs) + len(second.jobs) <= 2 + 8 + 2 * (24 + 16 + 16) + 2


def test_a_reference_that_fails_is_told_and_last(invoke: Invoke) -> None:
    def score(job: Job) -> Outcome:
        if job.source == SOURCES["reference:slow"]:
            return outcome(Status.CRASH, reason="ValueError: mine")
        return scored(job)

    code, output, _ = invoke(*MEASURE, pool=StartingPool(score))

    assert code == 0
    rows = [line for line in output.splitlines() if line.startswith((" 1", " 2", " 3"))]
    assert "reference:slow" in rows[-1]
    assert "failed" in rows[-1]
    assert "ValueError: mine" in rows[-1]


def test_a_failing_sandbox_exits_with_3(invoke: Invoke) -> None:
    pool = StartingPool(lambda _: outcome(Status.SANDBOX_ERROR, reason="no zygote"))

    code, output, complaint = invoke(*MEASURE, pool=pool)

    assert (code, output) == (3, "")
    assert "error: no zygote" in complaint


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--profile", "gpu"], "only for micro"),
        (["--program", "mine.py"], "needs --measure"),
        ([*MEASURE, "--program", "knobless.py"], "no knob to tune"),
        ([*MEASURE, "--program", "reference:slow"], "two programs are called reference:slow"),
        (["--measure", "--pairs", "3"], "less than 5 pairs"),
        (["--file", "nowhere.json"], "nowhere.json"),
    ],
)
def test_a_bad_request_is_refused(invoke: Invoke, words: list[str], message: str) -> None:
    code, output, complaint = invoke(*words)

    assert (code, output) == (2, "")
    assert message in complaint
    assert complaint.count("\n") == 1, "one sentence"


def test_a_file_that_is_no_leaderboard_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "board.json"
    file.write_text('{"entries": [1]}', encoding="utf-8")

    with pytest.raises(UsageError, match="no leaderboard"):
        record.read(file)
