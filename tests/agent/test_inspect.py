from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent import inspect
from db.store import Store
from sandbox.jobs import Gradients, Job, Outcome
from tests.agent.fakes import FakePool, ScriptedProposer, parts, scored, settings
from tests.agent.lineages import search


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a promoted program, one still pending, and failures."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    proposer = ScriptedProposer(0.08, 7.0, 0.45, 0.1)
    asyncio.run(search(folder, settings(budget_evals=41), parts(FakePool(), proposer)))
    return folder


def shown(*words: str, columns: int = 160) -> str:
    result = CliRunner().invoke(inspect.app, list(words), env={"COLUMNS": str(columns)})
    assert result.exit_code == 0, result.stderr
    return result.stdout


def best_id(run: Path) -> str:
    with Store.open(run, exclusive=False) as store:
        return [v.program_id for v in store.verdicts() if v.decision == "promote"][-1]


def test_the_overview_names_the_best_program_with_its_interval_and_seeds(run: Path) -> None:
    text = shown(str(run))

    assert best_id(run)[:12] in text
    assert "95 % interval" in text
    assert "4 fresh seeds" in text
    assert "preflight_reject: knob 1" in text
    assert "+    lr=0.08," in text


def test_the_tree_hangs_every_program_under_the_one_it_was_patched_from(run: Path) -> None:
    lines = shown(str(run), "tree").splitlines()

    assert lines[0].startswith("#0")
    assert "promote in replicate" in next(line for line in lines if "#1 " in line)
    assert "reject in smoke" in next(line for line in lines if "#3 " in line)
    assert not any("#2 " in line for line in lines), "a refused proposal made no program"


def test_a_program_is_shown_with_patch_verdicts_and_training_runs(run: Path) -> None:
    text = shown(str(run), "show", best_id(run)[:8])

    for part in ("-    lr=0.02,", "+    lr=0.08,", "replicate", "promote", "jail CPU", "lr 0.08"):
        assert part in text


def test_one_block_is_not_called_blocks(run: Path) -> None:
    assert "Patch (1 block)" in shown(str(run), "show", best_id(run)[:8])


def test_no_interval_is_cut_or_broken_at_80_columns(run: Path) -> None:
    with Store.open(run, exclusive=False) as store:
        verdicts = [v for v in store.verdicts() if v.interval_low is not None]
    overview = shown(str(run), columns=80)
    details = shown(str(run), "show", best_id(run), columns=80)

    raced = [v for v in verdicts if v.stage in {"race", "replicate"}]
    for text, shown_there in ((overview, raced), (details, verdicts)):
        assert "…" not in text
        for v in shown_there:
            if text is overview or v.program_id == best_id(run):
                assert f"[{v.interval_low:+.4f}, {v.interval_high:+.4f}], n {v.pairs}" in text


def test_best_and_seed_can_be_named_instead_of_ids(run: Path) -> None:
    text = shown(str(run), "diff", "seed", "best")

    assert "+    lr=0.08," in text
    assert shown(str(run), "best").count(best_id(run)[:12]) >= 1


def test_a_run_can_be_looked_at_while_it_is_going(run: Path) -> None:
    with Store.open(run):
        assert "Run run" in shown(str(run))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bets"], "unknown view 'bets'"),
        (["show"], "show takes 1 program, 0 were given"),
        (["show", "xyz"], "not the beginning of a program id"),
        (["show", "0000000000"], "no program id begins with"),
        (["diff", "seed"], "diff takes 2 programs, 1 was given"),
    ],
)
def test_a_wrong_question_ends_with_exit_code_2(run: Path, words: list[str], message: str) -> None:
    result = CliRunner().invoke(inspect.app, [str(run), *words])

    assert result.exit_code == 2
    assert message in result.stderr


def test_a_run_that_does_not_exist_ends_with_exit_code_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(inspect.app, ["latest", "--runs-dir", str(tmp_path)])

    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_a_diff_is_never_wrapped_so_that_it_applies(run: Path, tmp_path: Path) -> None:
    with Store.open(run, exclusive=False) as store:
        programs = list(store.programs())
    (tmp_path / "optim.py").write_text(programs[0].source, encoding="utf-8")
    result = CliRunner().invoke(
        inspect.app, [str(run), "diff", "seed", "best"], env={"COLUMNS": "20"}
    )
    (tmp_path / "change.patch").write_text(result.stdout, encoding="utf-8")

    command = ["git", "apply", "change.patch"]
    applied = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True)  # noqa: S603 - git's own reading of a patch is what counts

    assert applied.returncode == 0, applied.stderr
    best = next(program for program in programs if program.id == best_id(run))
    assert (tmp_path / "optim.py").read_text(encoding="utf-8") == best.source


def test_a_program_is_found_by_the_number_everyone_sees(run: Path) -> None:
    with Store.open(run, exclusive=False) as store:
        second = store.proposals()[1]

    assert (second.program_id or "?")[:12] in shown(str(run), "show", f"#{second.ordinal}")


def test_a_number_nobody_has_is_refused(run: Path) -> None:
    result = CliRunner().invoke(inspect.app, [str(run), "show", "#4000"])

    assert result.exit_code == 2
    assert "#4000" in result.stderr


@pytest.fixture(scope="module")
def cheated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a program that wins its race and needs no gradients for it."""

    def smuggled(job: Job) -> Outcome:
        return scored(replace(job, gradients=Gradients.TRUE))

    folder = tmp_path_factory.mktemp("runs") / "cheated"
    together = parts(FakePool(smuggled), ScriptedProposer(0.08))
    asyncio.run(search(folder, settings(budget_evals=40), together))
    return folder


def test_what_the_gates_refused_is_counted_as_such_and_ranked_nowhere(cheated: Path) -> None:
    text = shown(str(cheated))

    assert "gates: ignores gradients 1" in text
    assert "race" not in text.partition("Raced programs")[2]


def test_runs_under_changed_conditions_are_shown_as_such(cheated: Path) -> None:
    text = shown(str(cheated), "show", "#1")

    for part in ("gates, zero gradients", "8 of 40", "8 of 41", "ignores gradients: "):
        assert part in text


def test_the_evidence_of_a_promotion_is_raw_and_shrunken_and_counted_among_all(run: Path) -> None:
    text = shown(str(run), "evidence")

    row = next(line for line in text.splitlines() if line.lstrip().startswith("#1 "))
    with Store.open(run, exclusive=False) as store:
        tests = [v for v in store.verdicts(best_id(run)) if v.log_e is not None]
        looks = len(store.evaluations())
    against_champion = [v for v in tests if v.stage in {"race", "replicate"}]
    assert f"{sum(v.log_e or 0.0 for v in against_champion):.1f}" in row
    assert f", {sum(v.pairs for v in against_champion)} " in row
    assert row.count("[") == 1
    assert "x1.00" in row
    assert "Of 1 promotion, " in text
    assert f"search {looks}" in text


def test_the_stages_are_shown_with_what_they_foretell_save_and_refuse(run: Path) -> None:
    text = shown(str(run), "stages")

    assert "too few to say" in text
    assert "CPU time at most x2 and memory at most x1.5" in text
    with Store.open(run, exclusive=False) as store:
        races = [v for v in store.verdicts() if v.stage == "race"]
    assert f"{len(races)} race" in text
    assert f"{sum(v.pairs for v in races)} pairs instead of the {24 * len(races)} of" in text


def test_a_run_without_a_race_has_no_evidence_and_says_so(tmp_path: Path) -> None:
    together = parts(FakePool(), ScriptedProposer(0.08))
    asyncio.run(search(tmp_path / "run", settings(budget_evals=4), together))

    assert "No candidate was raced yet" in shown(str(tmp_path / "run"), "evidence")
    assert "too few to say" in shown(str(tmp_path / "run"), "stages")


@pytest.mark.parametrize("view", ["evidence", "stages"])
def test_no_figure_of_the_judging_is_cut_at_80_columns(run: Path, view: str) -> None:
    assert "…" not in shown(str(run), view, columns=80)
