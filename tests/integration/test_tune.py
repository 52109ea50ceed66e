"""Tuning a real program in real jails, stopped and taken up again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUDGET = ["--trials", "5", "--search-seeds", "1", "--choice-seeds", "1", "--pairs", "5"]


def command(out: Path) -> list[str]:
    words = [sys.executable, "-m", "agent.tune", "reference:adamw", "--profile", "micro"]
    return [*words, *BUDGET, "--only", "RATES.*", "--out", str(out), "--json"]


@pytest.mark.slow
def test_a_real_tuning_that_was_stopped_trains_nothing_twice(tmp_path: Path) -> None:
    with subprocess.Popen(  # noqa: S603 - ours
        command(tmp_path),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as stopped:
        assert stopped.stderr is not None
        next(line for line in stopped.stderr if line.startswith("trial 0"))
        stopped.send_signal(signal.SIGINT)
        first, complaint = stopped.communicate(timeout=120)
    trained = (tmp_path / "runs.jsonl").read_text(encoding="utf-8")

    ended = subprocess.run(  # noqa: S603 - ours
        command(tmp_path), cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )

    assert stopped.returncode == 0
    assert json.loads(first)["finding"] == "unfinished"
    assert "the same command goes on from here" in complaint
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    assert answer["finding"] != "unfinished"
    assert answer["trials"] == 5
    record = (tmp_path / "runs.jsonl").read_text(encoding="utf-8")
    assert record.startswith(trained)
    runs = [json.loads(line) for line in record.splitlines()[1:]]
    keys = [(run["program"], run["seed"]) for run in runs]
    assert len(set(keys)) == len(keys)
    assert all(run["status"] == "ok" and run["bpb"] < 5.0 for run in runs), "of 8 untrained"
