"""Names of programs, and what they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.programs import NoSuchProgramError, find_program, origin_of, reference_names
from sandbox.baseline import seed_program, shipped_program
from tests.agent.fakes import ScriptedProposer, StartingPool, parts, settings
from tests.agent.lineages import lineage_of, search


async def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "20260102-030405-s1"
    folder.mkdir()
    proposer = ScriptedProposer(0.09, 0.5)
    await search(folder, settings(budget_evals=80), parts(StartingPool(), proposer))
    return folder


def source_of(name: str, runs_dir: Path, profile: str = "micro") -> str:
    return find_program(name, profile=profile, runs_dir=runs_dir).source


def test_shipped_and_tuned_differ_in_their_knobs(tmp_path: Path) -> None:
    assert source_of("shipped", tmp_path) == shipped_program()
    assert source_of("tuned", tmp_path) == seed_program("micro")
    assert source_of("tuned", tmp_path, "cpu") == seed_program("cpu")
    assert seed_program("cpu") != seed_program("micro")


def test_every_reference_is_a_program(tmp_path: Path) -> None:
    names = reference_names()

    assert {"adamw", "muon", "normuon", "lion", "soap", "adabelief"} < set(names)
    for name in names:
        program = find_program(f"reference:{name}", profile="cpu", runs_dir=tmp_path)
        assert "def build_optimizer(" in program.source
        assert not program.origin.is_own


def test_an_unknown_reference_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(NoSuchProgramError, match="adamw, ademamix, lion"):
        source_of("reference:sgd", tmp_path)


@pytest.mark.parametrize("name", ["reference:../optim", "reference:__init__", "reference:"])
def test_a_reference_is_a_name_and_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(NoSuchProgramError, match="no reference optimizer"):
        source_of(name, tmp_path)


async def test_a_program_of_a_run_is_found_by_what_inspect_calls_it(tmp_path: Path) -> None:
    folder = await run_folder(tmp_path)
    programs = lineage_of(folder)["programs"]
    (_, seed_id), (ordinal, other_id) = programs[0], programs[1]

    seed = source_of("run:latest/seed", tmp_path)

    assert seed == source_of(f"run:{folder.name}/{seed_id[:10]}", tmp_path)
    assert seed == source_of(f"run:{folder}/#0", tmp_path)
    other = source_of(f"run:latest/#{ordinal}", tmp_path)
    assert other == source_of(f"run:latest/{other_id}", tmp_path)
    assert other != seed
    assert source_of("run:latest/best", tmp_path) in {seed, other}
    assert origin_of("run:latest/best", tmp_path).settings["profile"] == "micro"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("run:latest", "run:RUN/PROGRAM"),
        ("run:/best", "run:RUN/PROGRAM"),
        ("run:nowhere/best", "no run at"),
        ("run:latest/#99", "no program #99"),
        ("run:latest/zz", "not the beginning of a program id"),
        ("run:latest/", "not the beginning of a program id"),
    ],
)
async def test_what_is_not_there_is_refused(tmp_path: Path, name: str, message: str) -> None:
    await run_folder(tmp_path)

    with pytest.raises(NoSuchProgramError, match=message):
        source_of(name, tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "def build_optimizer(params, horizon): ...",
        "build_optimizer = make",
        "from elsewhere import build_optimizer",
        "from elsewhere import make as build_optimizer",
    ],
)
def test_a_file_may_provide_its_entry_point_in_any_usual_way(tmp_path: Path, line: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(line + "\n", encoding="utf-8")

    program = find_program(str(file), profile="cpu", runs_dir=tmp_path)

    assert (program.name, program.origin.is_own) == ("mine.py", True)


def test_a_name_that_would_upset_a_terminal_is_cleaned(tmp_path: Path) -> None:
    file = tmp_path / "a\x1b[2Jb.py"
    file.write_text("def build_optimizer(params, horizon): ...\n", encoding="utf-8")

    assert "\x1b" not in find_program(str(file), profile="cpu", runs_dir=tmp_path).name
