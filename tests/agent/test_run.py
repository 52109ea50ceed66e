"""What `python -m agent.run` refuses before it starts a worker; see the integration tests too."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent import run
from agent.session import create_run
from db.store import DATABASE, Store
from tests.agent.fakes import READY, clock, settings


def refused(*words: str) -> str:
    """Run the command, which has to end with exit code 2; return its one sentence."""
    result = CliRunner().invoke(run.app, list(words))
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1, "one sentence"
    return result.stderr


def old_run(folder: Path, **values: object) -> Path:
    create_run(folder, settings(**values), READY, clock()).close()
    return folder


def test_an_unknown_flag_is_refused() -> None:
    result = CliRunner().invoke(run.app, ["--budget-minutes", "3"])

    assert result.exit_code == 2
    assert "--budget-minutes" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget-hours", "0"], "budget_hours"),
        (["--budget-evals", "0"], "budget_evals"),
        (["--budget-evals", "-3"], "budget_evals"),
        (["--workers", "0"], "workers"),
        (["--profile", "cpi"], "profile"),
        (["--proposer", "magic"], "proposer"),
        (["--scope", "muom"], "scope"),
        (["--required-sandbox", "high"], "required_sandbox"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_a_bad_value_is_refused_and_leaves_nothing_behind(
    tmp_path: Path, words: list[str], message: str
) -> None:
    assert message in refused(*words, "--runs-dir", str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_an_unknown_key_in_the_config_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("workrs = 2\n", encoding="utf-8")

    assert "'workers'" in refused("--config", str(config), "--runs-dir", str(tmp_path))


def test_a_runs_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert "--runs-dir" in refused("--runs-dir", str(tmp_path / "file"))


def test_an_unknown_run_cannot_be_resumed(tmp_path: Path) -> None:
    assert "no run" in refused("--resume", "20260101-000000-s1", "--runs-dir", str(tmp_path))


def test_a_run_open_elsewhere_cannot_be_resumed(tmp_path: Path) -> None:
    folder = old_run(tmp_path / "run")

    with Store.open(folder):
        assert "in use" in refused("--resume", str(folder))


def test_a_database_of_another_version_is_refused(tmp_path: Path) -> None:
    folder = old_run(tmp_path / "run")
    with sqlite3.connect(folder / DATABASE) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'm9999'")
    connection.close()

    assert "version" in refused("--resume", str(folder))


def test_a_resumed_run_keeps_its_seed(tmp_path: Path) -> None:
    folder = old_run(tmp_path / "run", seed=4)

    assert "--seed was 4" in refused("--resume", str(folder), "--seed", "5")


def test_a_config_cannot_be_given_to_a_resumed_run(tmp_path: Path) -> None:
    folder = old_run(tmp_path / "run")

    assert "--config" in refused("--resume", str(folder), "--config", "c.toml")


def test_a_refused_run_can_be_opened_again(tmp_path: Path) -> None:
    folder = old_run(tmp_path / "run", seed=4)
    refused("--resume", str(folder), "--seed", "5")

    Store.open(folder).close()


def test_every_flag_is_explained() -> None:
    text = CliRunner().invoke(run.app, ["--help"], env={"COLUMNS": "200"}).stdout

    for flag in (
        "--budget-hours",
        "--budget-evals",
        "--proposer",
        "--workers",
        "--seed",
        "--profile",
        "--scope",
        "--data",
        "--runs-dir",
        "--resume",
        "--config",
        "--device",
        "--required-sandbox",
        "--unsafe-sandbox",
        "--no-compile",
    ):
        assert flag in text
