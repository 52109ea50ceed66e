from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent import plot
from agent.stage import Stage
from agent.summary import findings
from db.store import Store
from tests.agent.fakes import FakePool, ScriptedProposer, parts, settings
from tests.agent.lineages import search

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a promoted program and programs that lost."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    proposer = ScriptedProposer(0.08, 7.0, 0.45, 0.1, 0.05)
    asyncio.run(search(folder, settings(budget_evals=60), parts(FakePool(), proposer)))
    return folder


def test_the_picture_is_written_beside_the_run(run: Path) -> None:
    result = CliRunner().invoke(plot.app, [str(run)])

    assert result.exit_code == 0, result.stderr
    assert (run / "best_so_far.png").read_bytes().startswith(PNG)


def test_the_last_reign_is_the_reported_effect(run: Path) -> None:
    with Store.open(run, exclusive=False) as store:
        champions = plot.reigns(store.verdicts())
        found = findings(store)

    assert champions[0].effect == plot.ZERO
    assert champions[-1].effect == found.effect
    assert found.best is not None
    assert champions[-1].program_id == found.best.id


def test_a_race_is_drawn_on_top_of_its_champions_effect(run: Path) -> None:
    with Store.open(run, exclusive=False) as store:
        verdicts = store.verdicts()
    effects = {reign.program_id: reign.effect.mean for reign in plot.reigns(verdicts)}
    races = [v for v in verdicts if v.stage == Stage.RACE and v.effect_bpb is not None]

    drawn = plot.raced(verdicts)

    assert len(drawn) == len(races) > 1
    for (_, effect, won), race in zip(drawn, races, strict=True):
        assert race.effect_bpb is not None
        assert effect == pytest.approx(effects[race.reference_id or ""] + race.effect_bpb)
        assert won == (race.decision == "pass")


def test_a_file_that_cannot_be_written_is_refused(run: Path) -> None:
    for out in (run / "missing" / "x.png", run / "x.nonsense"):
        result = CliRunner().invoke(plot.app, [str(run), "--out", str(out)])

        assert result.exit_code == 2
        assert str(out) in result.stderr


def test_a_run_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(plot.app, ["nothing", "--runs-dir", str(tmp_path)])

    assert result.exit_code == 2
