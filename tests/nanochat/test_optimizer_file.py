"""Optimizer files load separately, take knobs by name, and fail with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nanochat.contract import Horizon
from nanochat.optimizer_file import (
    SHIPPED_OPTIMIZER,
    OptimizerFileError,
    build_from_module,
    load_optimizer_file,
    set_knobs,
    tuned_knobs,
)

SOURCE = """
from nanochat.contract import Knobs
MUON = Knobs(lr=0.02)
def build_optimizer(params, horizon):
    if horizon.total_steps < 10:
        raise ValueError("a run of 10 steps is the shortest")
    return Optimizer()
class Optimizer:
    def step(self):
        return MUON.lr
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path / "mine.py"


def horizon(steps: int) -> Horizon:
    return Horizon(total_steps=steps, tokens_per_step=64, model_width=32)


def test_a_knob_set_on_one_load_is_not_seen_by_another(file: Path) -> None:
    first, second = load_optimizer_file(file), load_optimizer_file(file)

    set_knobs(first, {"MUON.lr": 0.5})

    assert build_from_module(first, [], horizon(20)).step() == 0.5
    assert build_from_module(second, [], horizon(20)).step() == 0.02


@pytest.mark.parametrize("name", ["MUON.speed", "ADAMW.lr", "lr", "__file__.lr"])
def test_a_knob_that_is_not_there_is_refused_by_name(file: Path, name: str) -> None:
    with pytest.raises(OptimizerFileError, match=f"no knob {name}"):
        set_knobs(load_optimizer_file(file), {name: 1.0})


def test_a_refused_horizon_keeps_its_reason(file: Path) -> None:
    with pytest.raises(OptimizerFileError, match="a run of 10 steps is the shortest"):
        build_from_module(load_optimizer_file(file), [], horizon(5))


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("def build_optimizer(:", "does not run: SyntaxError"),
        ("raise KeyError('x')", "does not run: KeyError"),
        ("build_optimizer = 3", "has no function build_optimizer"),
    ],
)
def test_a_file_that_is_no_optimizer_is_refused(
    tmp_path: Path, source: str, complaint: str
) -> None:
    (tmp_path / "bad.py").write_text(source)

    with pytest.raises(OptimizerFileError, match=complaint):
        load_optimizer_file(tmp_path / "bad.py")


def test_a_missing_file_is_refused_by_path(tmp_path: Path) -> None:
    with pytest.raises(OptimizerFileError, match=r"no Python file at .*absent.py"):
        load_optimizer_file(tmp_path / "absent.py")


def test_a_profile_that_was_never_tuned_has_no_knobs(tmp_path: Path) -> None:
    assert tuned_knobs("cpu", tmp_path) == {}


def test_tuned_knobs_are_read_by_full_name(tmp_path: Path) -> None:
    record = {"profile": "cpu", "knobs": {"MUON.lr": 0.035}, "evidence": {}}
    (tmp_path / "cpu.json").write_text(json.dumps(record))

    assert tuned_knobs("cpu", tmp_path) == {"MUON.lr": 0.035}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not a record"),
        ("{}", "is not a record"),
        ('{"profile": "gpu", "knobs": {}}', "is for profile gpu"),
    ],
)
def test_a_record_of_something_else_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "cpu.json").write_text(text)

    with pytest.raises(OptimizerFileError, match=complaint):
        tuned_knobs("cpu", tmp_path)


@pytest.mark.parametrize("profile", ["micro", "cpu", "gpu"])
def test_every_shipped_record_fits_the_shipped_optimizer(profile: str) -> None:
    set_knobs(load_optimizer_file(SHIPPED_OPTIMIZER), tuned_knobs(profile))
