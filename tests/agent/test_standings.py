from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import fmean

import pytest

from agent.stage import Decided, Stage, Stopped
from agent.standings import Standings, standings_of
from agent.statistics.multiplicity import e_bh, e_lond
from agent.statistics.paired_test import Design, decide
from db.records import Score, Verdict
from tests.agent.verdicts import (
    SEED_PROGRAM,
    STEPS,
    raced,
    reference_scores,
    score,
    verdict,
)


def found(races: Sequence[tuple[Verdict, list[Score]]], *others: Verdict) -> Standings:
    verdicts = [race for race, _ in races]
    scores = [each for _, mine in races for each in mine] + reference_scores(*verdicts)
    return standings_of([*verdicts, *others], scores, steps=STEPS)


def noise(rng: random.Random, mean: float, pairs: int) -> list[float]:
    return [rng.gauss(mean, 0.005) for _ in range(pairs)]


def many(count: int) -> list[tuple[Verdict, list[Score]]]:
    """Candidates without any effect."""
    rng = random.Random(3)  # noqa: S311 - a simulation
    return [raced(f"p{number}", noise(rng, 0.0, 6), log_e=0.5) for number in range(count)]


def test_the_best_of_many_candidates_is_shrunken_more_than_the_same_one_alone() -> None:
    lucky = raced("lucky", [-0.008, -0.002, -0.009, -0.001, -0.007, -0.003])

    alone, among = found([lucky]), found([lucky, *many(40)])

    shrunken = [standings.raced[0].shrunken for standings in (alone, among)]
    assert shrunken[0] is not None
    assert shrunken[1] is not None
    assert alone.raced[0].raw_bpb == pytest.approx(-0.005)
    assert -0.005 < shrunken[1].mean < 0.0
    assert shrunken[1].chance_better < shrunken[0].chance_better


def test_race_and_replication_count_together() -> None:
    race, scores = raced("p", [-0.01, -0.012, -0.011], log_e=3.0)
    fresh = (901, 902)
    replication = verdict(
        "p", Stage.REPLICATE, -0.02, decision=Decided.PROMOTE, seeds=fresh, pairs=2, log_e=1.5
    )
    scores += [score("p", 901, 1.981), score("p", 902, 1.979)]
    scores += reference_scores(race, replication)

    standing = standings_of([race, replication], scores, steps=STEPS).raced[0]

    expected = [-0.01, -0.012, -0.011, -0.019, -0.021]
    assert standing.differences == pytest.approx(expected)
    assert standing.log_e == 4.5
    assert standing.is_promoted


def test_a_replication_against_another_champion_is_another_comparison() -> None:
    race, scores = raced("p", [-0.01, -0.012], log_e=3.0)
    replication = verdict("p", Stage.REPLICATE, -0.02, reference_id="newer", log_e=1.5)

    standing = standings_of(
        [race, replication], scores + reference_scores(race), steps=STEPS
    ).raced[0]

    assert (len(standing.differences), standing.log_e) == (2, 3.0)


def test_evidence_is_weighed_among_all_candidates_also_those_never_raced() -> None:
    strong, weak = raced("strong", [-0.01, -0.02], log_e=7.0), raced("weak", [0.01, 0.02], log_e=-1)
    screened = [
        verdict(f"s{number}", Stage.SCREEN, 0.1, decision=Decided.REJECT) for number in range(100)
    ]

    few, many_more = found([strong, weak]), found([strong, weak], *screened)

    assert (few.candidates, many_more.candidates) == (2, 102)
    assert [s.holds_after for s in few.raced] == [True, False] == list(e_bh([7.0, -1.0]))
    assert not any(s.holds_after for s in many_more.raced), list(e_bh([7.0, -1.0] + [0.0] * 100))
    assert [s.held_then for s in many_more.raced] == list(e_lond([7.0, -1.0]))


def test_an_older_race_without_a_recorded_e_value_gets_the_one_of_its_pairs() -> None:
    differences = [-0.01, -0.03, 0.01, -0.02]

    standing = found([raced("p", differences, log_e=None)]).raced[0]

    assert standing.log_e == pytest.approx(decide(differences, Design()).log_e)


def test_the_champions_on_the_way_add_up() -> None:
    rng = random.Random(4)  # noqa: S311 - a simulation
    races = [
        raced("a", noise(rng, -0.05, 12)),
        raced("b", noise(rng, -0.04, 12), reference="a"),
    ]
    promotions = [
        verdict(name, Stage.REPLICATE, -0.05, decision=Decided.PROMOTE, reference_id=reference)
        for name, reference in (("a", SEED_PROGRAM), ("b", "a"))
    ]
    verdicts = [races[0][0], promotions[0], races[1][0], promotions[1]]
    scores = [each for _, mine in races for each in mine]
    scores += reference_scores(*(race for race, _ in races))

    standings = standings_of(verdicts, scores, steps=STEPS)

    steps = [standing.shrunken for standing in standings.promoted if standing.shrunken]
    assert standings.best is not None
    assert standings.best.mean == pytest.approx(sum(step.mean for step in steps))
    assert standings.raced[1].level_bpb == pytest.approx(standings.best.mean)
    widths = [step.high - step.mean for step in steps]
    assert max(widths) < standings.best.high - standings.best.mean < sum(widths)
    assert standings.best.mean == pytest.approx(-0.09, abs=0.01)


def test_only_full_runs_with_true_gradients_are_compared() -> None:
    race, scores = raced("p", [-0.01, -0.02])
    others = [
        score("p", race.seeds[0], 9.0, horizon=STEPS + 1),
        score("p", race.seeds[0], 9.0, steps=STEPS // 4, horizon=STEPS // 4),
        score("p", race.seeds[0], 9.0, gradients="zero"),
    ]

    standings = standings_of([race], [*scores, *reference_scores(race), *others], steps=STEPS)

    assert standings.raced[0].raw_bpb == pytest.approx(-0.015)


def test_the_front_holds_what_nobody_equals_for_less_cpu_time() -> None:
    gains = {"cheap": (0.02, 0.5), "good": (-0.01, 1.2), "dear": (-0.009, 2.0), "dull": (0.01, 1.5)}
    gains |= {"cheat": (-0.5, 0.4), "costly": (-0.5, 0.4)}
    verdicts, scores = [verdict(SEED_PROGRAM, Stage.SMOKE, None, ordinal=0)], []
    for name, (mean, cpu) in gains.items():
        race, mine = raced(name, [mean, mean])
        verdicts.append(race)
        scores += [score(name, each.seed, each.bpb, jail_cpu_s=cpu) for each in mine]
    scores += reference_scores(verdicts[-1])
    verdicts += [
        verdict("cheat", Stage.GATES, None, decision=Decided.REJECT),
        verdict("costly", Stage.REPLICATE, -0.5, stopped=Stopped.GUARDRAIL),
    ]

    front = standings_of(verdicts, scores, steps=STEPS).front

    assert [(s.race.program_id, s.cpu_ratio) for s in front] == [("cheap", 0.5), ("good", 1.2)]
    assert fmean(s.level_bpb for s in front) == pytest.approx(0.005)


def test_a_run_without_a_race_has_no_standings() -> None:
    standings = standings_of([verdict("p", Stage.SCREEN, 0.1)], [], steps=STEPS)

    assert (standings.raced, standings.best, standings.candidates) == ((), None, 1)
