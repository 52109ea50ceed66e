from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from agent.seeds import race_seeds
from agent.stage import Decided, Stage, Stopped
from agent.stages.replicate import REPLICATE_PAIRS, Replication, replicate
from agent.statistics.paired_test import Design, decide
from sandbox.jobs import Job, Outcome
from sandbox.knobs import set_knobs
from tests.agent.fakes import SEED_SOURCE, FakePool, noise, scored
from tests.agent.stages.cases import CANDIDATE, INCUMBENT, RUN_SEED, bench, program

SEED = program(set_knobs(SEED_SOURCE, {"MUON.lr": 0.01}))


def ahead(**cost: float | int) -> Callable[[Job], Outcome]:
    """Let the candidate be better than both others, at a cost of its own."""

    def score(job: Job) -> Outcome:
        found = scored(replace(job, source=SEED.source))
        assert found.bpb is not None
        if job.source != CANDIDATE.source:
            return replace(found, peak_memory_bytes=100)
        bpb = found.bpb - 0.004 + 0.001 * noise("replicate", job.seed)
        return replace(found, bpb=bpb, **({"peak_memory_bytes": 100} | cost))  # type: ignore[arg-type]  # mixed fields

    return score


async def judged(score: Callable[[Job], Outcome]) -> Replication:
    return await replicate(bench(FakePool(score), seed_program=SEED), CANDIDATE, INCUMBENT)


async def test_a_promotion_comes_with_its_evidence_against_champion_and_seed_program() -> None:
    found = await judged(ahead())

    seeds = tuple(itertools.islice(race_seeds(RUN_SEED, CANDIDATE.id, season=0), REPLICATE_PAIRS))
    differences = [-0.004 + 0.001 * noise("replicate", seed) for seed in seeds]
    promotion, measured = found.against_incumbent, found.against_baseline
    assert (promotion.decision, promotion.stopped) == (Decided.PROMOTE, Stopped.OUT_OF_PAIRS)
    assert promotion.seeds == seeds
    assert promotion.log_e == pytest.approx(decide(differences, Design()).log_e)
    assert measured is not None
    assert (measured.stage, measured.reference_id) == (Stage.BASELINE, SEED.id)
    assert measured.effect_bpb == pytest.approx(sum(differences) / REPLICATE_PAIRS)


@pytest.mark.parametrize(
    ("cost", "reason"),
    [
        ({"jail_cpu_s": 0.021}, "2.10 times the optimizer CPU time of the seed program"),
        ({"peak_memory_bytes": 151}, "1.51 times the peak memory of the seed program"),
    ],
)
async def test_a_winner_at_too_high_a_price_is_no_champion(
    cost: dict[str, float], reason: str
) -> None:
    found = await judged(ahead(**cost))

    verdict = found.against_incumbent
    assert (verdict.decision, verdict.stopped) == (Decided.REJECT, Stopped.GUARDRAIL)
    assert verdict.reason.startswith(f"guardrail: {reason}")
    assert verdict.effect_bpb is not None
    assert found.against_baseline is None
