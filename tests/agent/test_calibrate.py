"""The command `agent.calibrate`: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent import calibrate
from agent.calibration import measuring, operating, sitting
from agent.calibration.measuring import Change
from agent.calibration.plants import bad, chance, gains, same
from agent.calibration.pool import Pool, read_pool, write_pool
from agent.calibration.real import Programme, facts_of
from agent.calibration.record import Record
from agent.session import create_run
from sandbox.baseline import seed_program
from sandbox.executor import PoolError
from sandbox.jobs import Job, Outcome, Status
from tests.agent.calibration.pools import made_up
from tests.agent.calibration.test_record import TRIAL
from tests.agent.fakes import READY, FakePool, StartingPool, clock, outcome, settings

DOCUMENT = (Path(__file__).parents[2] / "docs" / "calibration.md").read_text(encoding="utf-8")
QUICK = ("--trials", "200", "--searches", "100", "--gain", "0.005")
FEW = ("--aa", "2", "--repeats", "1", "--effect-pairs", "2")

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Invoke:
    """Return a function that runs the command on a pool of workers that only compute scores."""

    def invoked(*words: str, pool: FakePool | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr(sitting, "LocalPool", lambda *_: pool or StartingPool())
        result = CliRunner().invoke(calibrate.app, [*words, "--runs-dir", str(tmp_path / "runs")])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return invoked


@pytest.fixture
def noise(tmp_path: Path) -> str:
    """The file of a made-up pool."""
    write_pool(made_up(seeds=200), tmp_path / "noise.json")
    return str(tmp_path / "noise.json")


def nearly_done(path: Path, *, promoted_bad: bool = False) -> None:
    """Write a record that lacks nothing but one trial of chance."""
    tuned = seed_program("micro")
    programme = Programme(tuned=tuned, aa=2, repeats=1, effect_pairs=2)
    with Record(path, facts_of(FakePool(), programme, settings())) as record:
        for plant in same(tuned):
            record.add_trial(replace(TRIAL, plant=plant.name))
        for number in (0, 1):
            for plant in bad(tuned):
                record.add_trial(
                    replace(TRIAL, plant=plant.name, number=number, promoted=promoted_bad)
                )
        for plant in gains(tuned):
            record.add_trial(replace(TRIAL, plant=plant.name, promoted=True, claimed=True))
            record.add_differences(plant.name, (-0.004, -0.005))
        record.add_trial(replace(TRIAL, plant=chance(tuned, 0).name))


def refused(found: tuple[int, str, str], sentence: str) -> None:
    code, output, complaint = found
    assert (code, output) == (2, "")
    assert complaint.startswith("error: ")
    assert complaint.count("\n") == 1, "one sentence"
    assert sentence in complaint


def test_simulations_print_both_error_rates_and_every_rule(invoke: Invoke, noise: str) -> None:
    code, output, _ = invoke("--pool", noise, *QUICK)

    assert code == 0
    assert "Candidates that are no better: " in output
    assert "when they confirm 5 programs, nominally 1 % at most." in output
    for rule in ("sequential paired test", "best-ever greedy", "single run", "3 fixed seeds"):
        assert f"| {rule}" in output
    assert "made-up noise of 3 comparisons on 200 seeds" in output


def test_json_holds_what_the_tables_show(invoke: Invoke, noise: str) -> None:
    code, output, _ = invoke("--pool", noise, *QUICK, "--json")

    assert code == 0
    found = json.loads(output)["pools"][noise]
    assert found["replayed"][0]["points"][0]["accepted"]["trials"] == 200
    assert found["false_claims"]["trials"] == 200
    assert {f"`{name}`" for name in found} <= set(DOCUMENT.replace("|", " ").split())


def test_the_pools_that_come_with_the_project_are_the_default(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def made_up_instead(name: str) -> Pool:
        asked.append(name)
        return made_up()

    monkeypatch.setattr(calibrate, "find_pool", made_up_instead)

    _, output, _ = invoke(*QUICK)

    headings = [line.removeprefix("## ") for line in output.splitlines() if line[:2] == "##"]
    assert headings == asked == ["cpu_search", "micro", "micro_search"]


def test_a_rate_above_the_nominal_one_is_a_finding(
    invoke: Invoke, noise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "NOMINAL_CLAIMS", -0.1)

    code, _, _ = invoke("--pool", noise, *QUICK)

    assert code == 1


def test_bad_requests_are_refused_in_one_sentence(
    invoke: Invoke, noise: str, tmp_path: Path
) -> None:
    refused(invoke("--real", "--simulated"), "--simulated and --real cannot be given together")
    refused(invoke("--real", "--make-pool", "x"), "--real and --make-pool cannot be given")
    refused(invoke("--from-run", "latest"), "give --make-pool FILE too")
    refused(invoke("--record", "x"), "--record keeps trained trials: give --real too")
    refused(invoke("--pool", "nowhere"), "give a pool's file, or one of")
    refused(invoke("--gain", "0"), "--gain must be a positive number")
    refused(invoke("--paired-sd", "nan"), "--paired-sd must be a positive number")
    refused(invoke("--pool", noise, *QUICK, "--track3", str(tmp_path / "no")), "no")
    refused(invoke("--real", "--profile", "huge"), "profile")
    refused(invoke("--real", "--record", str(tmp_path)), "Is a directory")
    refused(invoke("--make-pool", "x", "--from-run", "latest"), "no run in")
    for path in (tmp_path, tmp_path / "no" / "pool.json"):
        refused(invoke("--make-pool", str(path)), "cannot be written")


def test_a_gain_beyond_the_reach_of_an_unpaired_test_is_refused(
    invoke: Invoke, noise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operating, "MOST_RUNS", 8)

    refused(invoke("--pool", noise, *QUICK), "needs more than 8 runs each: plant a larger --gain")


def test_trials_that_were_recorded_are_reported_with_the_rest(
    invoke: Invoke, tmp_path: Path
) -> None:
    nearly_done(tmp_path / "record")

    code, output, progress = invoke("--real", *FEW, "--record", str(tmp_path / "record"))

    assert code == 0
    assert "2 runs: false promotions 0.00 %" in output
    assert "| gain: lr back from x0.8 | 1 | 100.00 % (2.50 to 100.00)" in output
    # The fake pool does not see the dice: candidate and incumbent behave the same.
    assert "22 of 22 trials: same but for luck not promoted, screen" in progress


def test_a_promoted_bad_optimizer_is_a_finding(invoke: Invoke, tmp_path: Path) -> None:
    nearly_done(tmp_path / "record", promoted_bad=True)

    code, output, _ = invoke("--real", *FEW, "--record", str(tmp_path / "record"), "--json")

    assert code == 1
    found = json.loads(output)
    assert "uphill, which is no better, was promoted in 2 trials" in found["faults"]


def test_a_record_of_another_seed_is_refused(invoke: Invoke, tmp_path: Path) -> None:
    nearly_done(tmp_path / "record")

    found = invoke("--real", *FEW, "--seed", "9", "--record", str(tmp_path / "record"))

    refused(found, "was made with seed 1, now it is 9")


def test_a_sandbox_that_fails_ends_with_what_is_known(invoke: Invoke, tmp_path: Path) -> None:
    def fail(_job: Job) -> Outcome:
        return outcome(Status.SANDBOX_ERROR, reason="the worker is gone")

    class FailingPool(StartingPool):
        def __init__(self) -> None:
            super().__init__(fail)

    nearly_done(tmp_path / "record")

    code, output, complaint = invoke(
        "--real", *FEW, "--record", str(tmp_path / "record"), pool=FailingPool()
    )

    assert code == 3
    assert "1 run: false promotions" in output
    assert "the worker is gone" in complaint


def test_ctrl_c_ends_with_what_is_known(invoke: Invoke, tmp_path: Path) -> None:
    path, pool = tmp_path / "record", StartingPool()
    nearly_done(path)
    pool.before_job = lambda _: os.kill(os.getpid(), signal.SIGINT)

    code, output, complaint = invoke("--real", *FEW, "--record", str(path), pool=pool)

    assert code == 0
    assert "1 run: false promotions" in output
    assert complaint.endswith(f"Stopped; the same command goes on with what {path} holds.\n")


def test_workers_that_cannot_be_had_leave_nothing_to_report(invoke: Invoke) -> None:
    class NoPool(StartingPool):
        async def __aenter__(self) -> NoPool:
            raise PoolError("no worker started")

    code, output, complaint = invoke("--real", *FEW, pool=NoPool())

    assert (code, output, complaint) == (3, "", "error: no worker started\n")


def test_a_pool_is_measured_and_can_be_used(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "CHANGES", (Change(name="lr", factors={"MUON.lr": 2.0}),))
    path = tmp_path / "pool.json"

    code, output, _ = invoke("--make-pool", str(path), "--pool-seeds", "8", "--first-seed", "4")

    assert (code, output) == (0, f"{path}: 1 comparison, 0.01 CPU seconds a run\n")
    assert read_pool(path).comparisons[0].seeds == tuple(range(4, 12))


def test_a_run_without_common_seeds_makes_no_pool(invoke: Invoke, tmp_path: Path) -> None:
    create_run(tmp_path / "runs" / "r", settings(), READY, clock()).close()

    found = invoke("--make-pool", str(tmp_path / "pool.json"), "--from-run", "r")

    refused(found, "no two programs share 8 seeds at 40 steps")


def test_every_flag_is_explained() -> None:
    help_text = CliRunner().invoke(calibrate.app, ["--help"], env={"COLUMNS": "200"}).output

    for line in help_text.splitlines():
        if "--" in line and "│ " in line:
            assert len(line.strip(" │")) > 50, line
