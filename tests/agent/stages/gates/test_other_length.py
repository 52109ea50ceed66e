from __future__ import annotations

from collections.abc import Callable

import pytest

from agent.stages.gates.other_length import LENGTHS, other_length_gate
from sandbox.jobs import Job, Outcome, Status
from tests.agent.fakes import STEPS, FakePool, evidence, outcome
from tests.agent.stages.cases import CANDIDATE, case


def behind(by: float) -> Callable[[Job], Outcome]:
    def score(job: Job) -> Outcome:
        is_candidate = job.source == CANDIDATE.source
        return outcome(
            bpb=3.0 + (by if is_candidate else 0.0), fingerprint="f", evidence=evidence(job)
        )

    return score


def failing(source_is_candidate: bool) -> Callable[[Job], Outcome]:
    def score(job: Job) -> Outcome:
        if (job.source == CANDIDATE.source) is source_is_candidate:
            return outcome(Status.NAN, reason="the loss of step 3 is not finite")
        return behind(0.0)(job)

    return score


@pytest.mark.parametrize("by", [-0.5, 0.0, 0.02])
async def test_a_program_that_is_not_far_behind_passes(by: float) -> None:
    assert await other_length_gate(case(FakePool(behind(by)))) is None


async def test_a_program_far_behind_its_incumbent_is_refused() -> None:
    reason = await other_length_gate(case(FakePool(behind(0.04))))

    assert reason is not None
    assert reason.startswith("horizon: +0.0400 bpb against its incumbent in a run of")


async def test_both_are_trained_for_one_length_that_is_not_the_known_one() -> None:
    pool = FakePool(behind(0.0))

    await other_length_gate(case(pool))

    [length] = {job.steps for job in pool.jobs}
    assert LENGTHS[0] * STEPS <= length <= LENGTHS[1] * STEPS
    assert [job.total_steps for job in pool.jobs] == [length, length]
    assert len({job.seed for job in pool.jobs}) == 1


async def test_a_program_that_fails_at_another_length_is_refused() -> None:
    reason = await other_length_gate(case(FakePool(failing(source_is_candidate=True))))

    assert reason is not None
    assert reason.startswith("horizon: fails in a run of")


async def test_an_incumbent_that_fails_there_is_no_fault_of_the_candidate() -> None:
    assert await other_length_gate(case(FakePool(failing(source_is_candidate=False)))) is None
