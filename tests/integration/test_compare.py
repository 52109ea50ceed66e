"""Comparisons of real programs in real jails."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.programs import find_program, reference_names
from sandbox.baseline import seed_program
from sandbox.executor import LocalPool
from sandbox.jobs import Job, Outcome, Status, WorkerSpec
from sandbox.knobs import set_knobs

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "agent.compare"]
MICRO = ["--profile", "micro", "--json"]


@pytest.mark.slow
def test_every_reference_trains_in_a_jail_to_less_than_half_the_untrained_loss() -> None:
    async def train() -> dict[str, Outcome]:
        async with LocalPool(WorkerSpec(profile="micro"), 1) as pool:
            return {
                name: await pool.run(
                    Job(
                        source=find_program(
                            f"reference:{name}", profile="micro", runs_dir=ROOT
                        ).source,
                        seed=1,
                        steps=pool.ready.steps,
                    )
                )
                for name in reference_names()
            }

    outcomes = asyncio.run(train())

    assert {n: o.reason for n, o in outcomes.items() if o.status is not Status.OK} == {}
    assert all(o.bpb is not None and o.bpb < 4.0 for o in outcomes.values()), "of 8 untrained"


@pytest.mark.slow
def test_a_real_effect_is_found_and_the_same_file_twice_is_not(tmp_path: Path) -> None:
    weak = tmp_path / "weak.py"
    weak.write_text(set_knobs(seed_program("micro"), {"MUON.lr": 0.002}), encoding="utf-8")

    ended = subprocess.run(  # noqa: S603 - ours
        [*COMMAND, str(weak), "tuned", *MICRO],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    same = subprocess.run(  # noqa: S603 - ours
        [*COMMAND, "tuned", "tuned", *MICRO], capture_output=True, text=True, check=False, cwd=ROOT
    )

    assert (ended.returncode, same.returncode) == (0, 0), ended.stderr + same.stderr
    answer, nothing = json.loads(ended.stdout), json.loads(same.stdout)
    assert answer["verdict"] == "b_better"
    assert nothing["verdict"] == "no_difference"
    assert nothing["same_behaviour"]
    assert answer["runs"][0]["b"]["bpb"] == nothing["runs"][0]["a"]["bpb"], "shared seeds"


@pytest.mark.slow
def test_ctrl_c_ends_a_real_comparison_with_what_is_known() -> None:
    command = [*COMMAND, "tuned", "reference:adamw", *MICRO, "--workers", "1", "--steps", "400"]
    with subprocess.Popen(  # noqa: S603 - ours
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        output, rest = process.communicate(timeout=60)

    assert first.startswith("pair 1, seed ")
    assert process.returncode == 0, rest
    answer = json.loads(output)
    assert (answer["ending"], answer["verdict"]) == ("stopped", "undecided")
    assert answer["pairs"] >= 1
