"""What a comparison is said to have found, and what there is to see of it on the way."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.console import Console

from agent.compare_progress import SHOWN_PAIRS, Progress, describe_pair, shown
from agent.compare_report import Comparison, Finding, print_report
from agent.duel import Contender, Course, Duel, Ending, Matchup, Pair
from agent.either_way import decide_either_way, two_sided
from agent.statistics.paired_test import DecisionKind, Design
from sandbox.executor import Running
from sandbox.jobs import Job, Status
from tests.agent.fakes import READY, FakePool, outcome

DESIGN = two_sided(Design())
MATCHUP = Matchup(
    candidate=Contender(name="A (new.py)", source="new"),
    incumbent=Contender(name="B (old.py)", source="old"),
    course=Course(steps=40),
)


def duel_of(differences: Sequence[float]) -> Duel:
    """A duel after these pairs, as `run_duel` leaves it."""
    pairs = tuple(
        Pair(
            seed=seed,
            candidate=outcome(bpb=2.0 + difference, fingerprint=f"new {seed}"),
            incumbent=outcome(bpb=2.0, fingerprint=f"old {seed}"),
        )
        for seed, difference in enumerate(differences)
    )
    decision = decide_either_way(differences, DESIGN)
    is_over = decision.kind is not DecisionKind.CONTINUE
    ending = Ending.DECIDED if is_over else Ending.STOPPED
    return Duel(matchup=MATCHUP, pairs=pairs, decision=decision, ending=ending)


def comparison(duel: Duel) -> Comparison:
    return Comparison(names=("new.py", "old.py"), duel=duel, design=DESIGN, ready=READY)


def printed(found: Comparison, width: int = 300) -> str:
    page = io.StringIO()
    print_report(Console(file=page, width=width, highlight=False), found)
    return page.getvalue()


CASES = {
    Finding.A_BETTER: ([-0.02, -0.021, -0.019, -0.02, -0.02], "A is better than B"),
    Finding.B_BETTER: ([0.02, 0.021, 0.019, 0.02, 0.02], "B is better than A"),
    Finding.NO_DIFFERENCE: ([1e-5, -1e-5] * 4, "no difference of 0.0005 bpb or more"),
    Finding.NOT_TOLD_APART: ([0.01, -0.01] * 12, "no difference was shown"),
    Finding.UNDECIDED: ([-0.02, -0.04, -0.01], "none yet"),
}


@pytest.mark.parametrize("finding", CASES)
def test_a_finding_is_told_in_words(finding: Finding) -> None:
    differences, words = CASES[finding]
    found = comparison(duel_of(differences))

    assert found.finding is finding
    assert printed(found).splitlines()[0].split(maxsplit=1)[1].rstrip() == words


def test_a_failure_is_no_finding_however_clear_the_pairs_before_it() -> None:
    duel = duel_of(CASES[Finding.A_BETTER][0])
    failed = Pair(
        seed=9, candidate=outcome(Status.OOM, reason="too large"), incumbent=outcome(bpb=2.0)
    )
    duel = replace(duel, pairs=(*duel.pairs, failed), ending=Ending.FAILED)

    found = comparison(duel)

    assert found.finding is Finding.FAILED
    assert "A (new.py) failed on seed 9, oom: too large" in printed(found)
    assert "A is better than" not in printed(found)


def test_unsafe_runs_are_shouted_about() -> None:
    duel = duel_of([-0.02, -0.03])
    assert "UNSAFE" not in printed(comparison(duel))
    first = replace(duel.pairs[0], incumbent=replace(duel.pairs[0].incumbent, unsafe=True))

    duel = replace(duel, pairs=(first, *duel.pairs[1:]))

    assert "UNSAFE" in printed(comparison(duel))


def test_a_report_fits_eighty_columns() -> None:
    page = printed(comparison(duel_of([-0.02, -0.04, -0.01])), width=80)

    assert max(map(len, page.splitlines())) <= 80


def test_a_pair_is_described_with_both_scores_or_with_what_went_wrong() -> None:
    whole = duel_of([-0.02]).pairs[0]
    failed = replace(whole, incumbent=outcome(Status.NAN, reason="the loss is not finite"))

    assert describe_pair(1, whole) == "pair 1, seed 0: A 1.9800, B 2.0000, A - B -0.0200"
    assert describe_pair(2, failed) == "pair 2, seed 0: A 1.9800, B nan: the loss is not finite"


class BusyPool(FakePool):
    """A pool that trains something."""

    def running(self) -> tuple[Running, ...]:
        job = Job(source="", source_name="A (new.py)", seed=77, steps=40)
        return (Running(job=job, started_at=0.0, step=12),)


def test_the_live_view_shows_the_effect_so_far_the_last_pairs_and_what_is_trained() -> None:
    progress = Progress(BusyPool(), 24)
    progress.duel = duel_of([-0.02, -0.03] * 6)
    page = io.StringIO()

    Console(file=page, width=120).print(progress)

    view = page.getvalue()
    assert "12 pairs of at most 24: A - B -0.0250 bpb [" in view
    assert view.count("pair ") == SHOWN_PAIRS
    assert "pair 12," in view
    assert "step 12 of 40" in view
    assert "seed 77" in view


def test_on_a_terminal_the_view_is_drawn_and_without_one_every_pair_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(FakePool(), 24)
    duel = duel_of([-0.02])

    with shown(progress) as watch:
        watch(duel)
    silent = capsys.readouterr().err
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich's way to take any stream for a terminal
    with shown(progress) as watch:
        watch(duel)
    drawn = capsys.readouterr().err

    assert "pair 1" not in silent, "the log has it"
    assert "1 pair of at most 24" in drawn
