from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from agent.guardrails import Guardrails
from agent.seeds import is_first, race_seeds
from agent.stage import Decided, Stage, Stopped
from agent.stages.race import SEASON, race, season_of
from agent.statistics.paired_test import Design, decide
from sandbox.jobs import Job, Outcome, Status
from tests.agent.fakes import FakePool, noise, outcome, scored
from tests.agent.stages.cases import CANDIDATE, INCUMBENT, RUN_SEED, bench


def differing(difference: Callable[[int], float]) -> Callable[[Job], Outcome]:
    """Let the candidate differ from the incumbent by a function of the seed."""

    def score(job: Job) -> Outcome:
        found = scored(replace(job, source=INCUMBENT.source))
        assert found.bpb is not None
        is_candidate = job.source == CANDIDATE.source
        return replace(found, bpb=found.bpb + (difference(job.seed) if is_candidate else 0.0))

    return score


def around(mean: float, sd: float = 0.002) -> Callable[[Job], Outcome]:
    return differing(lambda seed: mean + sd * noise("race", seed))


async def test_a_race_ends_with_the_pair_at_which_the_test_decides() -> None:
    pool = FakePool(around(-0.004))

    verdict = await race(bench(pool), CANDIDATE, INCUMBENT, season=0)

    differences = [-0.004 + 0.002 * noise("race", seed) for seed in verdict.seeds]
    decision = decide(differences, Design())
    assert (verdict.stage, verdict.decision) == (Stage.RACE, Decided.PASS)
    assert verdict.stopped == Stopped.BETTER
    assert verdict.log_e == pytest.approx(decision.log_e)
    assert verdict.interval_high == pytest.approx(decision.effect.high)
    assert decide(differences[:-1], Design()).kind == "continue"
    assert verdict.pairs == len(verdict.seeds) == len(pool.jobs) / 2


@pytest.mark.parametrize(
    ("score", "design", "stopped"),
    [
        (around(0.01), Design(), Stopped.FUTILE),
        (around(0.0, sd=0.00001), Design(smallest_gain_bpb=0.01), Stopped.NEGLIGIBLE),
        (around(-0.0005), Design(max_pairs=5, least_chance=0.0), Stopped.OUT_OF_PAIRS),
    ],
)
async def test_a_race_without_a_win_says_what_ended_it(
    score: Callable[[Job], Outcome], design: Design, stopped: Stopped
) -> None:
    bed = replace(bench(FakePool(score)), design=design)

    verdict = await race(bed, CANDIDATE, INCUMBENT, season=0)

    assert (verdict.decision, verdict.stopped) == (Decided.REJECT, stopped)
    assert verdict.log_e is not None
    assert verdict.log_e < 3.0


async def test_a_candidate_that_fails_has_no_effect_and_a_reason() -> None:
    def failing(job: Job) -> Outcome:
        if job.source == CANDIDATE.source:
            return outcome(Status.NAN, reason="not finite")
        return scored(job)

    verdict = await race(bench(FakePool(failing)), CANDIDATE, INCUMBENT, season=0)

    assert (verdict.reason, verdict.stopped) == ("nan: not finite", Stopped.FAILED)
    assert (verdict.effect_bpb, verdict.log_e) == (None, None)


async def test_a_winner_that_is_far_behind_on_one_seed_breaks_a_guardrail() -> None:
    def setback(seed: int) -> float:
        return 0.02 if seed == unlucky else -0.03 + 0.001 * noise("race", seed)

    unlucky = next(race_seeds(RUN_SEED, INCUMBENT.id, season=0))
    bed = replace(bench(FakePool(differing(setback))), guardrails=Guardrails(max_setback_bpb=0.015))

    verdict = await race(bed, CANDIDATE, INCUMBENT, season=0)

    assert (verdict.decision, verdict.stopped) == (Decided.REJECT, Stopped.GUARDRAIL)
    assert verdict.reason.startswith("guardrail: +0.0200 bpb behind on one seed")
    allowed = await race(bench(FakePool(differing(setback))), CANDIDATE, INCUMBENT, season=0)
    assert allowed.decision == Decided.PASS


async def test_every_season_has_fresh_seeds() -> None:
    bed = bench(FakePool(around(-0.004)))

    seeds = [(await race(bed, CANDIDATE, INCUMBENT, season=season)).seeds for season in range(3)]

    assert len({seed for each in seeds for seed in each}) == sum(map(len, seeds))


def test_a_season_ends_after_a_fixed_number_of_challengers() -> None:
    assert [season_of(n) for n in (0, SEASON - 1, SEASON, 2 * SEASON)] == [0, 0, 1, 2]


async def test_a_lot_drawn_from_the_seed_says_who_is_trained_first() -> None:
    pool = FakePool(around(0.0, sd=0.01))
    bed = replace(bench(pool), design=Design(least_chance=0.0, smallest_gain_bpb=0.0))

    verdict = await race(bed, CANDIDATE, INCUMBENT, season=0)

    first = [job.source == CANDIDATE.source for job in pool.jobs[::2]]
    assert [job.seed for job in pool.jobs[::2]] == list(verdict.seeds)
    assert first == [is_first(seed, CANDIDATE.id) for seed in verdict.seeds]
    assert {True, False} == set(first)
