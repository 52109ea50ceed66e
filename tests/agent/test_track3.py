from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agent.track3.__main__ import app
from tests.agent.track3_logs import write_runs


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_runs(tmp_path / "good", [3.2750, 3.2752, 3.2754, 3.2756])


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    return write_runs(tmp_path / "slow", [3.2778, 3.2779, 3.2781, 3.2782])


def test_a_pass_ends_with_0_and_shows_its_evidence(good: Path) -> None:
    result = run(good)

    assert result.exit_code == 0
    words = next(line for line in result.stdout.splitlines() if "good" in line).split()
    # (3.28 - 3.2773)·√4 = .0054 at step 2875
    assert words[:7] == ["pass", "4", "2875", "3.27730", "0.00026", "0.00540", "+0.00140"]
    assert "submissions: 1, of these 1 pass, 0 fail, 0 malformed" in result.stdout


def test_a_fail_or_a_malformed_submission_among_others_ends_with_1(
    good: Path, tmp_path: Path
) -> None:
    bad = write_runs(tmp_path / "bad", [3.29])
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "log.txt").write_text("step:125/3000 val_lo", encoding="utf-8")

    result = run(good, bad, tmp_path / "cut")

    assert result.exit_code == 1
    assert "submissions: 3, of these 1 pass, 1 fail, 1 malformed" in result.stdout
    assert f"malformed: {tmp_path / 'cut' / 'log.txt'}:1: the log is cut off" in result.stdout
    assert run(good, bad).exit_code == 1


def test_a_claimed_step_is_checked(slow: Path) -> None:
    assert run(slow, "--step", "3000").exit_code == 0
    assert run(slow, "--step", "2975").exit_code == 1


def test_being_no_better_than_a_baseline_ends_with_1(good: Path, slow: Path) -> None:
    better, worse = run(good, "--baseline", slow), run(slow, "--baseline", good)

    assert (better.exit_code, worse.exit_code) == (0, 1)
    assert "comparisons: 1, of these 1 pass, 0 fail, 0 malformed" in better.stdout
    assert "0.00894" in better.stdout


def test_json_holds_the_evidence_of_every_verdict(good: Path, slow: Path) -> None:
    result = run(good, slow, "--baseline", slow, "--json")

    content = json.loads(result.stdout)
    assert result.exit_code == 1, "a submission is not better than itself"
    assert [one["verdict"] for one in content["submissions"]] == ["pass", "pass"]
    assert content["submissions"][0]["evidence"]["losses_nats"] == [3.277, 3.2772, 3.2774, 3.2776]
    assert content["submissions"][0]["evidence"]["statistic"] == pytest.approx(0.0054)
    assert [one["verdict"] for one in content["comparisons"]] == ["pass", "fail"]


def test_json_of_losses_that_are_not_finite_is_json(tmp_path: Path) -> None:
    line = "step:125/3000 val_loss:nan train_time:1s step_avg:1ms\n"
    (tmp_path / "log.txt").write_text(line, encoding="utf-8")

    result = run(tmp_path, "--json")

    content = json.loads(result.stdout, parse_constant=pytest.fail)
    assert content["submissions"][0]["verdict"] == "fail"


def test_runs_of_another_submission_are_pointed_out(good: Path, tmp_path: Path) -> None:
    write_runs(tmp_path / "thief", [3.2750, 3.2752, 3.2754])

    result = run(tmp_path)

    assert "note: 3 runs stand in another submission too" in result.stdout
    assert len(json.loads(run(tmp_path, "--json").stdout)["borrowed"]) == 1


@pytest.mark.parametrize("words", [["gone"], ["good", "--baseline", "gone"], ["empty"]])
def test_nothing_to_check_is_refused_in_one_sentence(
    good: Path, tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "empty").mkdir()

    result = run(*(word if word.startswith("-") else tmp_path / word for word in words))

    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_names_and_lines_of_logs_cannot_command_the_terminal(tmp_path: Path) -> None:
    folder = write_runs(tmp_path / "a\x1b[2J[red]", [3.275])
    (folder / "bad.txt").write_text("step:1 \x1b[2J[bold]\n", encoding="utf-8")

    result = run(folder)

    assert "\x1b" not in result.stdout
    assert "a\\x1b[2J[red]" in result.stdout
    assert "[bold]" in result.stdout
