from __future__ import annotations

import io
import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from agent.display import TrainingView, View, describe_champion, log_progress, render, view_of
from agent.effects import Effect
from agent.session import create_run, open_session
from agent.stage import Decided
from agent.tally import Note
from tests.agent.fakes import READY, FakePool, parts, settings

EFFECT = Effect(mean=-0.0123, low=-0.0201, high=-0.0045, pairs=4)

FULL = View(
    run_id="20261120-041207-s1",
    profile="cpu",
    sandbox="S2",
    budget_left="240 training runs, 12 min 30 s",
    fraction_left=0.4,
    elapsed_s=500.0,
    evaluations=160,
    proposals=41,
    programs=37,
    promotions=2,
    failures=(("race: not better", 20), ("screen: far behind", 8), ("smoke: diverged", 2)) * 3,
    champion="59b7086a7bd4",
    effect=EFFECT,
    training=tuple(
        TrainingView(
            program=f"{k:012x}", stage="replicate", seed=2**31 - 1, step=k, steps=400, elapsed_s=61
        )
        for k in range(9)
    ),
    notes=tuple(
        Note(
            ordinal=1000 + k,
            stage="replicate",
            decision=Decided.REJECT,
            text="[odd] words " * 20,
            effect_bpb=0.001,
        )
        for k in range(8)
    ),
)

EMPTY = replace(FULL, failures=(), champion=None, effect=None, training=(), notes=())


def drawn(view: View, width: int) -> list[str]:
    console = Console(width=width, height=24, file=io.StringIO(), force_terminal=False)
    with console.capture() as capture:
        console.print(render(view))
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("view", [FULL, EMPTY], ids=["full", "empty"])
def test_the_display_fits_24_lines(view: View, width: int) -> None:
    lines = drawn(view, width)

    assert len(lines) <= 24
    assert {len(line) for line in lines} == {width}


def test_the_display_shows_budget_counts_champion_training_and_decisions() -> None:
    text = "\n".join(drawn(FULL, 200))

    for fact in (
        "240 training runs, 12 min 30 s left",
        "41 proposed, 37 new programs, 160 training runs, 2 promoted",
        "not kept  race: not better 20",
        "59b7086a7bd4",
        "-0.0123 bpb [-0.0201, -0.0045] on 4 fresh seeds",
        "000000000003",
        "3/400 steps",
        "#1007",
        "[odd] words",
    ):
        assert fact in text


def test_a_single_count_is_singular() -> None:
    single = replace(FULL, programs=1, evaluations=1, effect=replace(EFFECT, pairs=1))

    text = "\n".join(drawn(single, 200))

    assert "1 new program, 1 training run, 2 promoted" in text
    assert "on 1 fresh seed" in text
    assert "1 fresh seeds" not in text


def test_before_the_first_measurement_no_champion_is_claimed() -> None:
    assert "the seed program is being measured" in "\n".join(drawn(EMPTY, 100))


def test_the_seed_program_is_not_called_an_improvement() -> None:
    assert "nothing better found yet" in describe_champion("59b7086a7bd4", None)


def test_without_a_terminal_the_same_facts_are_log_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    log_progress(FULL)

    for fact in ("12 min 30 s", "41 proposed", "race: not better 20", "-0.0123", "step 3 of 400"):
        assert fact in caplog.text


async def test_the_view_is_that_of_the_running_search(tmp_path: Path) -> None:
    chosen, pool = settings(budget_evals=30), FakePool()
    together = parts(pool)
    views: list[View] = []
    with (
        create_run(tmp_path / "run", chosen, READY, together.clock) as store,
        open_session(store, tmp_path / "run", chosen, together) as session,
    ):
        pool.before_job = lambda _: views.append(view_of(session))
        await session.search(1)

    names = [(run.program, run.stage) for view in views for run in view.training]
    assert names[0] == ("seed program", "smoke"), "there is no champion yet"
    assert ("champion", "race") in names
    assert any(stage == "race" and re.fullmatch("[0-9a-f]{12}", name) for name, stage in names)
    texts = [note.text for view in views for note in view.notes]
    assert any(text.startswith("seed program: ") for text in texts)
    assert not any("seed program: seed program" in text for text in texts)
    first, last = views[0], views[-1]
    assert (first.champion, last.champion is not None) == (None, True)
    assert [run.stage for run in first.training] == ["smoke"]
    assert (last.evaluations, last.proposals > 0) == (30, True)
    assert last.fraction_left == 0.0
