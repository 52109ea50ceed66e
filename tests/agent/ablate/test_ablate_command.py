"""The command `agent.ablate` on a run made with a fake pool."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent import yardstick
from agent.ablate import __main__ as command
from agent.ablate.offspring import PROPOSER
from agent.intake import plant
from agent.lineage import Lineage
from agent.session import create_run
from db.records import Program, Proposal
from db.store import Store
from sandbox.knobs import read_knobs, set_knobs
from sandbox.patches import make_patch, to_json
from sandbox.source_form import digest, normalised_digest
from tests.agent.fakes import (
    READY,
    SEED_SOURCE,
    FakePool,
    ScriptedProposer,
    StartingPool,
    clock,
    parts,
    settings,
)
from tests.agent.lineages import resume

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "ablate.md").read_text(encoding="utf-8")
WINNER = set_knobs(SEED_SOURCE, {"MUON.lr": 0.1, "MUON.weight_decay": 0.3})

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with a seed program, #0, and a child of it, #1."""
    folder, now = tmp_path / "runs" / "one", clock()
    folder.mkdir(parents=True)
    with create_run(folder, settings(budget_evals=500), READY, now) as store:
        plant(Lineage(store, lambda _: None), SEED_SOURCE, now)
        program = Program(
            id=digest(WINNER),
            ordinal=1,
            source=WINNER,
            normalised=normalised_digest(WINNER),
            created_at=now(),
        )
        proposal = Proposal(
            ordinal=1,
            proposer="knobs",
            description="two knobs",
            patch=to_json(make_patch(SEED_SOURCE, WINNER)),
            parents=(digest(SEED_SOURCE),),
            status="accepted",
            reason="ok: passed preflight",
            program_id=program.id,
            created_at=now(),
        )
        store.add_proposal(proposal, program)
    return folder


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Invoke:
    """Return a function that runs the command on a pool: exit code, output, complaints."""
    monkeypatch.setattr(yardstick, "seed_program", lambda _profile: SEED_SOURCE)

    def invoked(*words: str, pool: FakePool | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr(command, "LocalPool", lambda _spec, _workers: pool or StartingPool())
        places = ["--runs-dir", str(tmp_path / "runs")]
        result = CliRunner().invoke(command.app, [*words, *places])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return invoked


ARGUMENTS = ("one", "--program", "#1", "--margin", "0.01")


def test_what_every_part_does_is_told_and_the_minimal_program_written(
    invoke: Invoke, run: Path
) -> None:
    code, output, complaint = invoke(*ARGUMENTS)

    minimal = run / "ablation" / digest(WINNER)[:12] / "minimal.py"
    assert code == 0
    assert "1 of 2 parts can go together" in output
    assert "MUON.weight_decay: 0.1 to 0.3" in output
    assert "the very same scores without it" in output
    assert "-    weight_decay=0.3," in output
    assert "--add makes it part of the run" in complaint
    source = minimal.read_text(encoding="utf-8")
    assert read_knobs(source)["MUON.weight_decay"].value == 0.1
    assert read_knobs(source)["MUON.lr"].value == 0.1


def test_nothing_is_added_to_the_run_unless_asked(invoke: Invoke, run: Path) -> None:
    invoke(*ARGUMENTS)

    with Store.open(run, exclusive=False) as store:
        assert len(store.proposals()) == 2


def test_the_minimal_program_becomes_a_child_of_the_winner(invoke: Invoke, run: Path) -> None:
    code, _, complaint = invoke(*ARGUMENTS, "--add")

    assert code == 0
    assert "Added as #2" in complaint
    with Store.open(run, exclusive=False) as store:
        child = store.proposals()[-1]
        assert (child.ordinal, child.proposer, child.status) == (2, PROPOSER, "accepted")
        assert child.parents == (digest(WINNER),)
        assert child.description == "without MUON.weight_decay: 0.1 to 0.3"
        assert "Without 1 part, on fresh seeds: as good as the winner" in child.reason
        assert child.program_id is not None
        source = store.program(child.program_id).source
    assert source == set_knobs(SEED_SOURCE, {"MUON.lr": 0.1})


def test_a_child_is_not_added_twice(invoke: Invoke, run: Path) -> None:
    invoke(*ARGUMENTS, "--add")

    code, _, complaint = invoke(*ARGUMENTS, "--add")

    assert code == 0
    assert "Nothing to add: the minimal program is #2" in complaint
    with Store.open(run, exclusive=False) as store:
        assert len(store.proposals()) == 3


def test_the_run_judges_the_child_when_it_is_resumed(invoke: Invoke, run: Path) -> None:
    invoke(*ARGUMENTS, "--add")

    asyncio.run(resume(run, settings(budget_evals=500), parts(FakePool(), ScriptedProposer())))

    with Store.open(run, exclusive=False) as store:
        child = store.proposals()[2]
        assert child.program_id is not None
        verdicts = store.verdicts(child.program_id)
    assert verdicts
    assert verdicts[-1].decision != "pass"


def test_every_field_of_the_json_is_documented(invoke: Invoke, run: Path) -> None:
    answer = json.loads(invoke(*ARGUMENTS, "--json")[1])

    fields = {*answer, *answer["parts"][0], *answer["attempts"][0]}
    assert [field for field in sorted(fields) if f"`{field}`" not in DOCUMENT] == []


def test_an_ablation_that_was_stopped_goes_on_to_the_same_result(
    invoke: Invoke, run: Path, tmp_path: Path
) -> None:
    whole = json.loads(invoke(*ARGUMENTS, "--json", "--out", str(tmp_path / "a"))[1])
    first = StartingPool()
    first.before_job = lambda count: os.kill(os.getpid(), signal.SIGINT) if count == 16 else None
    place = ("--out", str(tmp_path / "b"))

    code, output, complaint = invoke(*ARGUMENTS, "--json", *place, pool=first)
    resumed = json.loads(invoke(*ARGUMENTS, "--json", *place)[1])

    assert code == 0
    assert json.loads(output)["is_finished"] is False
    assert "the same command goes on from here" in complaint
    assert resumed == whole


def test_the_program_the_run_began_with_is_refused(invoke: Invoke, run: Path) -> None:
    code, _, complaint = invoke("one", "--program", "#0")

    assert code == 2
    assert "nothing to take apart" in complaint


def test_a_run_measured_on_another_text_is_refused(invoke: Invoke, run: Path) -> None:
    pool = StartingPool()
    pool.facts = {"corpus_digest": "1" * 64}

    code, _, complaint = invoke(*ARGUMENTS, pool=pool)

    assert code == 2
    assert "corpus_digest" in complaint


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["two"], "no run at"),
        (["one", "--program", "#7"], "no program #7"),
        (["one", "--program", "#1", "--margin", "0"], "--margin"),
        (["one", "--program", "#1", "--pairs", "3"], "--pairs 3"),
        (["one", "--program", "#1", "--alpha", "0.9"], "alpha"),
    ],
)
def test_a_bad_request_is_refused(
    invoke: Invoke, run: Path, words: list[str], message: str
) -> None:
    code, output, complaint = invoke(*words)

    assert (code, output) == (2, "")
    assert message in complaint
    assert complaint.count("\n") == 1, "one sentence"
