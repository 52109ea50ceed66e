from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from agent.stages.gates.gradients import gradient_gate
from sandbox.jobs import Evidence, Gradients, Job, Outcome, Status
from tests.agent.fakes import UNTRAINED_BPB, FakePool, evidence, outcome, scored
from tests.agent.stages.cases import case

TRUE_BPB = 3.0


Scores = Mapping[str, float | Status]
HONEST: Scores = {"true": TRUE_BPB, "zero": UNTRAINED_BPB, "permuted": UNTRAINED_BPB + 1.0}


def answers(
    shown: Callable[[Job], Evidence | None] = evidence, scores: Scores = HONEST
) -> Callable[[Job], Outcome]:
    """Score runs by their gradients; an honest program's scores and movements unless given."""

    def score(job: Job) -> Outcome:
        found = scores.get(job.gradients, HONEST[job.gradients])
        if isinstance(found, Status):
            return outcome(found, reason="line 3 in step: no")
        return outcome(bpb=found, fingerprint="f", evidence=shown(job))

    return score


def stuck(name: str, gradients: Gradients, size: int = 32) -> Callable[[Job], Evidence | None]:
    """Let one parameter move with these gradients as it does with the true ones."""

    def shown(job: Job) -> Evidence | None:
        own, true = (
            evidence(job, size=size),
            evidence(replace(job, gradients=Gradients.TRUE), size=size),
        )
        assert own is not None
        assert true is not None
        if job.gradients is not gradients:
            return own
        movement = tuple(
            (each, dict(true.movement)[each] if each == name else numbers)
            for each, numbers in own.movement
        )
        return replace(own, movement=movement)

    return shown


async def test_a_program_that_learns_from_its_gradients_passes() -> None:
    pool = FakePool(answers())

    assert await gradient_gate(case(pool)) is None
    assert [job.gradients for job in pool.jobs] == ["true", "zero", "permuted"]
    assert len({(job.seed, job.steps) for job in pool.jobs}) == 1


@pytest.mark.parametrize("gradients", [Gradients.ZERO, Gradients.PERMUTED])
async def test_one_parameter_that_needs_no_gradients_is_enough_to_be_refused(
    gradients: Gradients,
) -> None:
    reason = await gradient_gate(case(FakePool(answers(stuck("lm_head", gradients)))))

    assert reason is not None
    assert reason.startswith("ignores gradients: 1 of 2 parameters, lm_head among them")


async def test_a_touch_of_gradient_on_a_smuggled_parameter_does_not_hide_it() -> None:
    def shown(job: Job) -> Evidence:
        smuggled, noise = evidence(replace(job, gradients=Gradients.TRUE)), evidence(job, "noise")
        assert smuggled is not None
        assert noise is not None
        pairs = zip(smuggled.movement, noise.movement, strict=True)
        movement = tuple(
            (name, tuple(w + 0.01 * e for w, e in zip(weights, extra, strict=True)))
            for (name, weights), (_, extra) in pairs
        )
        return replace(smuggled, movement=movement)

    reason = await gradient_gate(case(FakePool(answers(shown))))

    assert reason is not None
    assert reason.startswith("ignores gradients: 2 of 2 parameters")


@pytest.mark.parametrize("gradients", ["zero", "permuted"])
async def test_a_score_that_stays_without_information_is_refused(gradients: str) -> None:
    kept = UNTRAINED_BPB - 0.3 * (UNTRAINED_BPB - TRUE_BPB)

    reason = await gradient_gate(case(FakePool(answers(scores={gradients: kept}))))

    assert reason is not None
    assert reason.startswith("ignores gradients: 30% of its improvement")
    assert gradients in reason


@pytest.mark.parametrize("gradients", [Gradients.ZERO, Gradients.PERMUTED])
async def test_a_few_numbers_that_come_out_alike_are_no_evidence(gradients: Gradients) -> None:
    """A permutation of one number changes nothing, and decay may move a scalar most of its way."""
    pool = FakePool(answers(stuck("lm_head", gradients, size=2)))

    assert await gradient_gate(case(pool)) is None


async def test_a_parameter_that_never_moves_is_not_held_against_a_program() -> None:
    def shown(job: Job) -> Evidence:
        found = evidence(job)
        assert found is not None
        return replace(found, movement=(*found.movement, ("frozen", (0.0,) * 32)))

    assert await gradient_gate(case(FakePool(answers(shown)))) is None


@pytest.mark.parametrize(
    "failed",
    [
        {"zero": Status.CRASH},
        {"zero": Status.NAN, "permuted": Status.NAN},
        {"permuted": Status.DIVERGED},
    ],
)
async def test_a_program_may_break_on_gradients_no_training_gives(
    failed: Scores,
) -> None:
    assert await gradient_gate(case(FakePool(answers(scores=failed)))) is None


async def test_a_program_that_gives_up_when_gradients_lead_nowhere_is_refused() -> None:
    """Their sizes and values are ordinary, so it must have noticed the test."""
    reason = await gradient_gate(case(FakePool(answers(scores={"permuted": Status.CRASH}))))

    assert reason == "crash: with permuted gradients: line 3 in step: no"


async def test_a_program_no_better_than_its_untrained_model_is_refused() -> None:
    reason = await gradient_gate(case(FakePool(answers(scores={"true": UNTRAINED_BPB}))))

    assert reason is not None
    assert reason.startswith("does not learn")


async def test_a_program_that_fails_on_the_gates_seed_is_refused_with_its_reason() -> None:
    reason = await gradient_gate(case(FakePool(answers(scores={"true": Status.NAN}))))

    assert reason == "nan: line 3 in step: no"


async def test_a_score_without_evidence_opens_no_gate() -> None:
    pool = FakePool(lambda job: replace(scored(job), evidence=None))

    with pytest.raises(LookupError, match="no evidence"):
        await gradient_gate(case(pool))
