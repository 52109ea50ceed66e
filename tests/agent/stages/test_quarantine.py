from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from agent.effects import single_pair
from agent.seeds import quarantine_seeds
from agent.stage import Decided, Stage
from agent.stages.bench import Comparison, conclude
from agent.stages.quarantine import (
    FRESH_PAIRS,
    HELD_BPB,
    LONGER,
    SHORTER,
    SUSPICIOUS_GAIN_BPB,
    quarantine,
    suspicion,
)
from db.records import Verdict
from sandbox.jobs import Job, Outcome, Status
from tests.agent.fakes import STEPS, FakePool, outcome, scored
from tests.agent.stages.cases import CANDIDATE, INCUMBENT, RUN_SEED, bench

SCREEN_STEPS = STEPS // 4


def found(stage: Stage, gain: float) -> Verdict:
    comparison = Comparison(reference_id=INCUMBENT.id, effect=single_pair(-gain), seeds=(5,))
    return conclude(bench(FakePool()), CANDIDATE, stage, (Decided.PASS, "near: x"), comparison)


def gaining(gain: Callable[[Job], float]) -> Callable[[Job], Outcome]:
    """Score the candidate like the incumbent, but for its gain."""

    def score(job: Job) -> Outcome:
        result = scored(replace(job, source=INCUMBENT.source))
        assert result.bpb is not None
        is_candidate = job.source == CANDIDATE.source
        return replace(result, bpb=result.bpb - (gain(job) if is_candidate else 0.0))

    return score


async def judged(pool: FakePool, stage: Stage = Stage.RACE, gain: float = 0.3) -> Verdict:
    return await quarantine(bench(pool), CANDIDATE, INCUMBENT, found(stage, gain))


def test_a_gain_is_suspicious_in_screen_and_race_from_a_limit_on() -> None:
    small, large = SUSPICIOUS_GAIN_BPB * 0.99, SUSPICIOUS_GAIN_BPB * 1.01

    assert suspicion([found(Stage.SCREEN, small), found(Stage.RACE, small)]) is None
    for stage in (Stage.SCREEN, Stage.RACE):
        verdict = found(stage, large)
        assert suspicion([found(Stage.SMOKE, 0.0), verdict]) is verdict
    assert suspicion([found(Stage.REPLICATE, large), found(Stage.SCREEN, -large)]) is None


async def test_a_huge_gain_that_is_real_comes_out_of_quarantine() -> None:
    verdict = await judged(FakePool(gaining(lambda _: 0.3)))

    assert (verdict.stage, verdict.decision) == (Stage.QUARANTINE, Decided.PASS)
    assert verdict.reason.startswith("held: -0.3000 bpb in the race")
    assert verdict.effect_bpb == pytest.approx(-0.3)
    assert verdict.pairs == len(verdict.seeds) == 2 * FRESH_PAIRS
    assert verdict.reference_id == INCUMBENT.id


@pytest.mark.parametrize(
    "gain",
    [
        pytest.param(lambda _: 0.0, id="luck of the seed"),
        pytest.param(lambda _: HELD_BPB * 0.9, id="almost nothing left"),
        pytest.param(lambda job: 0.3 if job.steps == STEPS else 0.0, id="one length only"),
        pytest.param(lambda job: 0.3 if job.steps == STEPS else -0.01, id="worse elsewhere"),
    ],
)
async def test_a_gain_that_is_not_there_on_fresh_seeds_and_lengths_is_implausible(
    gain: Callable[[Job], float],
) -> None:
    verdict = await judged(FakePool(gaining(gain)))

    assert verdict.decision == Decided.REJECT
    assert verdict.reason.startswith("implausible: -0.3000 bpb in the race")


@pytest.mark.parametrize(
    ("stage", "steps", "share"),
    [(Stage.SCREEN, SCREEN_STEPS, LONGER), (Stage.RACE, STEPS, SHORTER)],
)
async def test_the_suspicious_length_is_taken_again_and_one_near_it(
    stage: Stage, steps: int, share: tuple[float, float]
) -> None:
    pool = FakePool(gaining(lambda _: 0.3))

    await judged(pool, stage)

    lengths = [job.steps for job in pool.jobs]
    assert len(lengths) == 8
    assert lengths[:4] == [steps] * 4
    assert len(set(lengths[4:])) == 1
    assert lengths[4] != steps
    assert share[0] * steps <= lengths[4] <= share[1] * steps
    assert len({job.seed for job in pool.jobs}) == 4


async def test_a_real_gain_may_be_missing_on_one_seed() -> None:
    unlucky = next(quarantine_seeds(RUN_SEED, CANDIDATE.id))

    verdict = await judged(FakePool(gaining(lambda job: -0.01 if job.seed == unlucky else 0.1)))

    assert verdict.decision == Decided.PASS


async def test_a_failure_in_quarantine_is_refused_with_its_reason() -> None:
    pool = FakePool(lambda _: outcome(Status.NAN, reason="not finite"))

    verdict = await judged(pool)

    assert (verdict.decision, verdict.reason) == (Decided.REJECT, "nan: not finite")
