from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from agent.seeds import gate_seed, quarantine_seeds, race_seeds, screen_seed, smoke_seed
from agent.stage import Decided, Stage
from agent.stages.gating import GATES, pass_gates
from db.records import Program
from sandbox.jobs import Gradients, Job, Outcome
from tests.agent.fakes import SEED_SOURCE, FakePool, evidence, scored
from tests.agent.stages.cases import CANDIDATE, INCUMBENT, RUN_SEED, Sink, bench, program


async def test_an_honest_program_passes_all_gates_on_a_seed_of_its_own() -> None:
    pool, sink = FakePool(), Sink()

    verdict = await pass_gates(bench(pool, sink=sink), CANDIDATE, INCUMBENT, INCUMBENT)

    assert (verdict.stage, verdict.decision) == (Stage.GATES, Decided.PASS)
    assert verdict.reason.startswith("sound: ")
    seed = gate_seed(RUN_SEED, CANDIDATE.id)
    assert verdict.seeds == (seed,)
    assert {job.seed for job in pool.jobs} == {seed}
    assert {e.stage for e in sink.evaluations} == {Stage.GATES}


async def test_the_seed_of_the_gates_is_used_for_nothing_else() -> None:
    others = [smoke_seed(RUN_SEED), screen_seed(RUN_SEED, CANDIDATE.id)]
    others += itertools.islice(race_seeds(RUN_SEED, CANDIDATE.id, season=0), 100)
    others += itertools.islice(quarantine_seeds(RUN_SEED, CANDIDATE.id), 100)

    assert gate_seed(RUN_SEED, CANDIDATE.id) not in others
    assert gate_seed(RUN_SEED, CANDIDATE.id) != gate_seed(RUN_SEED, INCUMBENT.id)


def knows_the_horizon(job: Job) -> Outcome:
    return replace(scored(job), evidence=evidence(job, job.total_steps))


def needs_no_gradients(job: Job) -> Outcome:
    return scored(replace(job, gradients=Gradients.TRUE))


def far_behind(job: Job) -> Outcome:
    found = scored(job)
    assert found.bpb is not None
    is_full = job.steps == 40
    return replace(found, bpb=found.bpb + (0.0 if is_full or job.source == INCUMBENT.source else 1))


async def test_every_gate_stands_in_the_way_and_the_first_refusal_is_final() -> None:
    """Which gate refuses is seen in the reason; nothing is trained for those after it."""
    found = []
    for score in (knows_the_horizon, needs_no_gradients, far_behind):
        pool = FakePool(score)
        verdict = await pass_gates(bench(pool), CANDIDATE, INCUMBENT, INCUMBENT)
        assert verdict.decision == Decided.REJECT
        found.append((verdict.reason.partition(":")[0], len(pool.jobs)))

    assert found == [("recognises the horizon", 4), ("ignores gradients", 6), ("horizon", 9)]
    assert len(GATES) == len(found)


async def test_runs_with_altered_gradients_are_recorded_as_such() -> None:
    sink = Sink()

    await pass_gates(bench(FakePool(), sink=sink), CANDIDATE, INCUMBENT, INCUMBENT)

    full = [e.gradients for e in sink.evaluations if e.steps == 40]
    assert full == ["true", "zero", "permuted"]


def with_tests_for_a_width(number: int) -> Program:
    """A harmless program whose text looks fitted to its benchmark in some places."""
    tests = "".join(
        f"    if horizon.model_width == {7 + i}:\n        pass\n" for i in range(number)
    )
    building = "def build_optimizer(params, horizon):\n"
    return program(SEED_SOURCE.replace(building, building + tests), ordinal=1)


@pytest.mark.parametrize("score", [scored, needs_no_gradients])
async def test_a_tell_in_the_text_is_flagged_in_the_verdict_whatever_it_says(
    score: Callable[[Job], Outcome],
) -> None:
    plain, flagged = [
        await pass_gates(bench(FakePool(score)), candidate, INCUMBENT, INCUMBENT)
        for candidate in (CANDIDATE, with_tests_for_a_width(1))
    ]

    assert flagged.decision == plain.decision
    assert "flagged" not in plain.reason
    assert re.search(r"\(flagged: .*`horizon.model_width == 7`.*\)$", flagged.reason)


async def test_a_tell_the_parent_has_as_well_is_not_the_childs() -> None:
    candidate = with_tests_for_a_width(1)

    verdict = await pass_gates(bench(FakePool()), candidate, INCUMBENT, candidate)

    assert "flagged" not in verdict.reason


async def test_a_text_full_of_tells_makes_no_endless_verdict() -> None:
    verdict = await pass_gates(bench(FakePool()), with_tests_for_a_width(9), INCUMBENT, INCUMBENT)

    assert verdict.reason.endswith("; 6 more)")
