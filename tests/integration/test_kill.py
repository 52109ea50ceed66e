"""Killing a run at any instant loses nothing and repeats nothing."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from db.store import Store

KILLS = 10
BUDGET = 45
# A session trains for some seconds; kills fall anywhere from its start-up to its end.
LATEST_KILL_S = 9.0


def _command(runs: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "agent.run", "--runs-dir", str(runs), *arguments]


def _start(runs: Path) -> list[str]:
    budget = ("--budget-evals", str(BUDGET), "--workers", "1", "--profile", "micro")
    return _command(runs, *budget, "--seed", "5")


def _lineage(runs: Path) -> dict[str, Any]:
    """Everything a run decided and measured, without the times at which it did."""
    # A process killed before its workers had answered leaves a folder without a database.
    (database,) = runs.glob("*/lineage.db")
    with Store.open(database.parent, exclusive=False) as store:
        return {
            "programs": [(p.id, p.ordinal) for p in store.programs()],
            "proposals": [
                (p.ordinal, p.description, p.patch, p.parents, p.status, p.reason, p.program_id)
                for p in store.proposals()
            ],
            "evaluations": [
                (
                    *(e.program_id, e.stage, e.split, e.steps, e.horizon, e.gradients, e.seed),
                    *(e.status, e.bpb, e.fingerprint, e.evidence),
                )
                for e in store.evaluations()
            ],
            "verdicts": [
                (
                    *(v.program_id, v.stage, v.decision, v.reason, v.effect_bpb, v.seeds),
                    *(v.log_e, v.stopped, v.is_sample),
                )
                for v in store.verdicts()
            ],
        }


@pytest.mark.slow
def test_a_run_killed_ten_times_has_the_lineage_of_an_undisturbed_one(tmp_path: Path) -> None:
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    subprocess.run(_start(undisturbed), check=True, capture_output=True)  # noqa: S603 - ours
    rng = random.Random(1)  # noqa: S311 - no secret
    command = _start(disturbed)

    for _ in range(KILLS):
        process = subprocess.Popen(  # noqa: S603 - ours
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(rng.uniform(0.5, LATEST_KILL_S))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if list(disturbed.glob("*/lineage.db")):
            command = _command(disturbed, "--resume", "latest")
    finished = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - ours

    assert finished.returncode == 0, finished.stderr[-2000:]
    assert _lineage(disturbed) == _lineage(undisturbed)
