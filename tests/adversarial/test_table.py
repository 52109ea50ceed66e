from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.adversarial.__main__ import main
from tests.adversarial.corpus import Attack, Slot
from tests.adversarial.observed import Observed
from tests.adversarial.runner import CorpusRun, Tried
from tests.adversarial.table import show


def _observed(verdict: str, *sightings: str) -> Observed:
    return Observed(verdict=verdict, reason="[why]", seconds=0.1, sightings=sightings)


def _shown(tried: Tried, *leftovers: str) -> str:
    console = Console(file=io.StringIO(), width=150)
    run = CorpusRun(tried=(tried,), ready={"sandbox_level": 3}, leftovers=leftovers, wall_s=2.0)
    show(run, console, "anywhere")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _tried(jail: Observed, naive: Observed) -> Tried:
    attack = Attack(id="it", group="some", slot=Slot.STEP, code="", ends=("crash",), oracle="x")
    return Tried(attack=attack, preflight=_observed("refused"), naive=naive, jail=jail)


def test_a_breach_is_named() -> None:
    shown = _shown(_tried(_observed("ok", "a [bad] effect"), _observed("fallen", "x")))

    assert "BREACH some/it: a [bad] effect" in shown
    assert "sandbox S3" in shown


def test_an_attack_that_does_not_beat_the_naive_trainer_is_named() -> None:
    assert "WEAK it: no effect in-process [why]" in _shown(
        _tried(_observed("crash"), _observed("held"))
    )


def test_leftovers_are_named_and_a_clean_run_has_none() -> None:
    tried = _tried(_observed("crash"), _observed("fallen", "x"))

    assert "leftovers: a left file" in _shown(tried, "a left file")
    assert "leftovers: none" in _shown(tried)
    assert "BREACH" not in _shown(tried)


def test_an_unknown_attack_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--id", "none_of_that_name"]) == 2
    assert "no attack" in capsys.readouterr().out
