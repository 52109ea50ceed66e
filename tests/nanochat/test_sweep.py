"""The sweep on a profile made even smaller than `micro`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from nanochat import optim, sweep
from nanochat.contract import Bounds, Choice, Horizon, ParamInfo, Role
from nanochat.dials import Point, knobs_of, scaled_warmups, start_point
from nanochat.optimizer_file import TUNED_FOLDER, tuned_knobs
from nanochat.profiles import load_profile

PROFILE = replace(load_profile("micro"), steps=12, validation_bytes=2000)
SEEDS = (1, 2)


@pytest.fixture
def pool() -> Iterator[Executor]:
    # One thread: knobs are set on the module, which other threads would see.
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as executor:
        yield executor


def race(pool: Executor) -> sweep.Race:
    return sweep.Race(PROFILE, pool, seed=3, seeds=SEEDS)


def test_a_score_follows_from_knobs_and_seed() -> None:
    knobs = knobs_of(start_point())

    first = sweep.score(PROFILE, knobs, 1)

    assert sweep.score(PROFILE, knobs, 1) == first
    assert sweep.score(PROFILE, knobs, 2) != first
    assert sweep.score(PROFILE, {**knobs, "MUON.lr": 0.01}, 1) != first


def test_knobs_are_set_back_after_a_score() -> None:
    sweep.score(PROFILE, knobs_of(start_point()), 1)
    with pytest.raises(optim.HorizonError):
        sweep.score(PROFILE, {"MUON.lr": 0.1}, 1)

    assert (optim.MUON.lr, optim.SCHEDULE.warmup_steps) == (0.02, 40)


def test_a_sweep_begins_with_the_start_point(pool: Executor) -> None:
    trials = race(pool).next_batch(2)

    assert [trial.point for trial in trials] == [start_point()]
    assert trials[0].is_best


def test_only_trials_that_fall_behind_miss_seeds(pool: Executor) -> None:
    running = race(pool)
    best = running.next_batch(1)[0]
    dropped = 0

    for _ in range(8):
        (trial,) = running.next_batch(1)
        gap = trial.bpb[0] - best.bpb[0]
        assert (len(trial.bpb) == 1) == (gap >= sweep.HOPELESS_GAP_BPB)
        whole = len(trial.bpb) == len(SEEDS)
        ahead = whole and statistics.fmean(trial.bpb) < statistics.fmean(best.bpb)
        assert trial.is_best == ahead
        dropped += not whole
        best = trial if trial.is_best else best

    assert dropped > 0


def test_a_resumed_sweep_tries_what_an_undisturbed_one_does(pool: Executor) -> None:
    whole = race(pool)
    expected = [trial for _ in range(4) for trial in whole.next_batch(1)]

    rest = race(pool)
    rest.resume(expected[:2])
    found = [trial for _ in range(2) for trial in rest.next_batch(1)]

    assert found == expected[2:]


def trial(number: int, parent: int | None, **turned: float) -> sweep.Trial:
    point: Point = {"momentum": 0.9, "beta2": 0.95, **turned}
    return sweep.Trial(number=number, parent=parent, point=point, bpb=[2.0], is_best=True)


def test_a_record_gives_back_the_trials_it_was_made_of(tmp_path: Path) -> None:
    file = tmp_path / "record.jsonl"
    trials = [trial(0, None), trial(1, 0, beta2=0.8), trial(2, 0, momentum=0.7)]

    sweep.read_record(file, {"seed": 1})
    for each in trials:
        sweep.append_record(file, trials[: each.number], each)

    assert sweep.read_record(file, {"seed": 1}) == trials


def test_a_record_of_other_settings_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "record.jsonl"
    sweep.read_record(file, {"seed": 1})

    with pytest.raises(sweep.SweepError, match="other settings"):
        sweep.read_record(file, {"seed": 2})


def test_a_line_cut_short_is_dropped_from_the_record(tmp_path: Path) -> None:
    file = tmp_path / "record.jsonl"
    sweep.read_record(file, {"seed": 1})
    sweep.append_record(file, [], trial(0, None))
    whole = file.read_text()
    file.write_text(whole + whole.splitlines()[1][:20])

    assert sweep.read_record(file, {"seed": 1}) == [trial(0, None)]
    assert file.read_text() == whole


def test_the_shipped_warm_ups_are_shortened_only_where_they_do_not_fit() -> None:
    names = ("SCHEDULE.warmup_steps", "ADAMW.warmup_steps")

    assert sweep.shipped_knobs(replace(PROFILE, steps=42)) == {}
    assert sweep.shipped_knobs(replace(PROFILE, steps=41)) == dict.fromkeys(names, 4)


@pytest.mark.slow
def test_the_command_writes_knobs_that_training_takes(tmp_path: Path) -> None:
    record = tmp_path / "sweep.jsonl"
    arguments = ["--profile", "micro", "--trials", "2", "--race-seeds", "1", "--pairs", "2"]

    result = sweep_command([*arguments, "--out", str(record)])

    assert result == 0
    assert len(record.read_text().splitlines()) == 3
    knobs = tuned_knobs("micro", tmp_path)
    assert set(knobs) == {*knobs_of(start_point()), *scaled_warmups(40)}
    found = json.loads((tmp_path / "micro.json").read_text())["evidence"]
    assert found["trials"] == 2
    difference = found["mean_bpb_tuned"] - found["mean_bpb_default"]
    assert found["mean_paired_difference_bpb"] == pytest.approx(difference, abs=2e-5)


@pytest.mark.parametrize("bad", [["--profile", "huge"], ["--trials", "0"], ["--seed", str(2**63)]])
def test_bad_input_ends_with_code_2(bad: list[str], tmp_path: Path) -> None:
    assert sweep_command([*bad, "--out", str(tmp_path / "x.jsonl")]) == 2


def sweep_command(arguments: list[str]) -> int:
    return CliRunner().invoke(sweep.app, arguments).exit_code


@pytest.mark.parametrize("file", sorted(TUNED_FOLDER.glob("*.json")), ids=lambda file: file.stem)
def test_tuned_knobs_are_inside_their_bounds_and_let_eight_steps_run(file: Path) -> None:
    knobs = tuned_knobs(file.stem)

    for name, value in knobs.items():
        bounds = optim.BOUNDS[name]
        if isinstance(bounds, Bounds):
            assert bounds.low <= value <= bounds.high
        else:
            assert isinstance(bounds, Choice)
            assert value in bounds.values
    matrix = ParamInfo(
        tensor=torch.nn.Parameter(torch.ones(2, 2)), name="m", role=Role.MATRIX, layer=0
    )
    with sweep.turned(knobs):
        optim.build_optimizer([matrix], Horizon(total_steps=8, tokens_per_step=1, model_width=64))
