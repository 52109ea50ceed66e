"""A whole ablation on a fake pool: what is found idle, what is kept, what is left."""

from __future__ import annotations

import math
from typing import Any

import pytest

from agent.ablate.ablation import Ablation, Setup, WinnerFailsError, ablate
from agent.ablate.equivalence import Equivalence, Use
from agent.ablate.parts import take_apart
from agent.duel import Course
from agent.evaluations import SandboxError
from agent.statistics.paired_test import Design
from sandbox.jobs import Job, Outcome, Status
from sandbox.knobs import read_knobs, set_knobs
from tests.agent.fakes import SEED_SOURCE, FakePool, noise, outcome, scored

WINNER = set_knobs(SEED_SOURCE, {"MUON.lr": 0.1, "MUON.weight_decay": 0.3})
HELPER = "def twice(x):\n    return 2 * x\n\n\n"
WITH_HELPER = WINNER.replace("class Optimizer", HELPER + "class Optimizer").replace(
    "alpha=-MUON.lr)", "alpha=-twice(MUON.lr))"
)


async def never(_source: str) -> str | None:
    return None


async def helper_missing(source: str) -> str | None:
    if "-twice(" in source and "def twice" not in source:
        return "line 30, names: twice is not defined"
    return None


def setup(**changes: Any) -> Setup:
    fields: dict[str, Any] = {
        "test": Equivalence(margin_bpb=0.01, design=Design(max_pairs=20)),
        "course": Course(steps=40),
        "seed": 1,
        "purpose": "ablate",
        "refusal": never,
    }
    return Setup(**(fields | changes))


async def ablated(pool: FakePool, program: str = WINNER, **changes: Any) -> Ablation:
    new = Ablation(anatomy=take_apart(SEED_SOURCE, program))
    return await ablate(pool, new, setup(**changes))


async def test_the_part_that_matters_stays_and_the_idle_one_goes() -> None:
    found = await ablated(FakePool())

    lr, decay = found.findings
    assert (lr.use, decay.use) == (Use.GOOD, Use.NOTHING)
    knobs = read_knobs(found.minimal)
    assert knobs["MUON.lr"].value == 0.1
    assert knobs["MUON.weight_decay"].value == 0.1, "that of the original"
    assert found.dropped == {1}


async def test_the_minimal_program_is_tested_on_seeds_that_judged_no_part() -> None:
    found = await ablated(FakePool())

    (attempt,) = found.attempts
    assert attempt.duel is not None
    fresh = {pair.seed for pair in attempt.duel.pairs}
    used = {pair.seed for f in found.findings if f.duel for pair in f.duel.pairs}
    assert fresh
    assert not fresh & used


async def test_a_part_that_is_needed_only_by_an_idle_one_goes_with_it() -> None:
    # The call does nothing to the score here; its definition cannot go before it.
    found = await ablated(FakePool(), WITH_HELPER, refusal=helper_missing)

    uses = {f.part.description.split("+ ")[-1]: f.use for f in found.findings}
    assert uses["def twice(x):"] is Use.NEEDED
    assert "twice" not in found.minimal
    assert read_knobs(found.minimal)["MUON.lr"].value == 0.1


async def test_a_definition_stays_where_its_use_does() -> None:
    def score(job: Job) -> Outcome:
        lost = 0.0 if "-twice(" in job.source else 0.1
        return outcome(bpb=2.0 + lost + 0.001 * noise(job.source, job.seed))

    found = await ablated(FakePool(score), WITH_HELPER, refusal=helper_missing)

    assert "def twice" in found.minimal
    assert "-twice(" in found.minimal


async def test_parts_that_can_replace_each_other_do_not_both_go() -> None:
    # Either knob alone does all the good there is, so each looks idle while the other is there.
    def score(job: Job) -> Outcome:
        knobs = read_knobs(job.source)
        is_good = knobs["MUON.lr"].value == 0.1 or knobs["MUON.weight_decay"].value == 0.3
        lost = 0.0 if is_good else 0.1
        return outcome(bpb=2.0 + lost + 0.001 * noise(job.source, job.seed))

    found = await ablated(FakePool(score))

    assert [f.use.is_droppable for f in found.findings] == [True, True]
    assert [attempt.is_as_good for attempt in found.attempts] == [False, True]
    assert len(found.dropped) == 1


async def test_a_program_that_fails_without_a_part_needs_it() -> None:
    def score(job: Job) -> Outcome:
        if read_knobs(job.source)["MUON.weight_decay"].value != 0.3:
            return outcome(Status.DIVERGED, reason="the loss grew")
        return scored(job)

    found = await ablated(FakePool(score))

    assert [f.use for f in found.findings] == [Use.GOOD, Use.NEEDED]
    assert "the loss grew" in found.findings[1].reason
    assert found.minimal == WINNER


async def test_a_harmful_part_goes() -> None:
    def score(job: Job) -> Outcome:
        decay = float(read_knobs(job.source)["MUON.weight_decay"].value)
        lr = float(read_knobs(job.source)["MUON.lr"].value)
        bpb = 2.0 + 0.1 * abs(math.log(lr / 0.1)) + 0.2 * (decay - 0.1)
        return outcome(bpb=bpb + 0.001 * noise(job.source, job.seed))

    found = await ablated(FakePool(score))

    assert [f.use for f in found.findings] == [Use.GOOD, Use.HARM]
    assert read_knobs(found.minimal)["MUON.weight_decay"].value == 0.1


async def test_the_result_does_not_depend_on_the_number_of_workers() -> None:
    one, many = await ablated(FakePool(), slots=1), await ablated(FakePool(), slots=6)

    assert [(f.use, f.cost_bpb) for f in one.findings] == [
        (f.use, f.cost_bpb) for f in many.findings
    ]
    assert one.minimal == many.minimal


async def test_a_winner_that_fails_itself_is_told() -> None:
    pool = FakePool(
        lambda job: outcome(Status.NAN, reason="odd") if job.source == WINNER else scored(job)
    )

    with pytest.raises(WinnerFailsError, match="winner failed on seed"):
        await ablated(pool)


async def test_a_failing_sandbox_is_no_part_s_fault() -> None:
    pool = FakePool(lambda _: outcome(Status.SANDBOX_ERROR, reason="no zygote"))

    with pytest.raises(SandboxError, match="no zygote"):
        await ablated(pool)
