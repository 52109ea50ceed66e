"""A whole tuning: what is tried, chosen and measured, and on which seeds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from agent.duel import Course
from agent.either_way import two_sided
from agent.evaluations import SandboxError
from agent.statistics.paired_test import Design
from agent.tune.report import as_fields, finding
from agent.tune.samplers import Method
from agent.tune.space import space_of
from agent.tune.tuning import Budget, OwnValuesFailError, Tuning, tune
from sandbox.jobs import Job, Outcome, Status
from sandbox.knobs import read_knobs, set_knobs
from tests.agent.fakes import SEED_SOURCE, FakePool, noise, outcome, scored

COURSE = Course(steps=40)
GOOD = set_knobs(SEED_SOURCE, {"MUON.lr": 0.1})


def budget(**changes: Any) -> Budget:
    fields: dict[str, Any] = {
        "method": Method.CMA,
        "trials": 40,
        "search_seeds": 2,
        "choice_seeds": 3,
        "seed": 1,
        "design": two_sided(Design(max_pairs=8)),
    }
    return Budget(**(fields | changes))


def new(source: str = SEED_SOURCE) -> Tuning:
    return Tuning(name="mine", space=space_of(source))


async def tuned(pool: FakePool, source: str = SEED_SOURCE, **changes: Any) -> Tuning:
    return await tune(pool, new(source), budget(**changes), COURSE)


async def test_better_values_are_found_and_confirmed_on_fresh_seeds() -> None:
    found = await tuned(FakePool())

    assert finding(found) == "better"
    assert float(read_knobs(found.source)["MUON.lr"].value) == pytest.approx(0.1, rel=0.5)
    assert len(found.trials) == 40
    assert found.duel is not None
    assert found.duel.effect is not None
    assert found.duel.effect.high < 0.0
    assert found.duel.effect.pairs == 8, "all of them, however clear"


async def test_search_choice_and_validation_share_no_seed() -> None:
    pool, plan = FakePool(), budget()
    found = await tune(pool, new(), plan, COURSE)

    search = set(plan.seeds("tune search", 2))
    choice = set(plan.seeds("tune choice", 3))
    assert found.duel is not None
    fresh = {pair.seed for pair in found.duel.pairs}
    assert len(search | choice | fresh) == 2 + 3 + 8
    assert {job.seed for job in pool.jobs} == search | choice | fresh


async def test_the_same_budget_gives_the_same_tuning_with_any_number_of_workers() -> None:
    first, other = [
        await tune(FakePool(), new(), budget(), COURSE, slots=slots) for slots in (1, 5)
    ]

    assert first.trials == other.trials
    assert first.source == other.source


async def test_the_best_of_many_equal_programs_is_not_called_better() -> None:
    # Whatever the knobs, a score is noise: false alarms are what the interval allows, 5 in 100.
    def score(job: Job) -> Outcome:
        return outcome(bpb=2.0 + 0.01 * noise(job.source, job.seed))

    results = [await tuned(FakePool(score), seed=seed, trials=20) for seed in range(20)]

    assert sum(finding(found) == "better" for found in results) <= 2
    assert all(found.search_gain_bpb >= 0.0 for found in results)
    optimism = [as_fields(found, budget(), None)["optimism_bpb"] for found in results]
    assert sum(optimism) / len(optimism) > 0.003, "the best of 20 looks ahead by luck"


async def test_own_values_that_are_best_are_kept() -> None:
    def score(job: Job) -> Outcome:
        is_own = job.source == SEED_SOURCE
        return outcome(bpb=(2.0 if is_own else 2.5) + 0.001 * noise(job.source, job.seed))

    found = await tuned(FakePool(score))

    assert finding(found) == "own_values_kept"
    assert found.source == SEED_SOURCE
    assert found.duel is None


async def test_a_lucky_point_of_the_search_is_not_chosen() -> None:
    lucky_seeds = set(budget().seeds("tune search", 2))

    def score(job: Job) -> Outcome:
        is_own = job.source == SEED_SOURCE
        bonus = 0.0 if is_own or job.seed not in lucky_seeds else 1.0
        return outcome(bpb=(2.0 if is_own else 2.5) - bonus)

    found = await tuned(FakePool(score))

    assert found.best.number != 0
    assert found.is_own


async def test_points_that_fail_are_recorded_and_never_chosen() -> None:
    def score(job: Job) -> Outcome:
        if float(read_knobs(job.source)["MUON.lr"].value) > 0.03:
            return outcome(Status.NAN, reason="not finite")
        return scored(job)

    found = await tuned(FakePool(score))

    failed = [trial for trial in found.trials if trial.reason]
    assert failed
    assert all(math.isinf(trial.loss) for trial in failed)
    assert float(read_knobs(found.source)["MUON.lr"].value) <= 0.03


async def test_a_program_that_fails_with_its_own_values_is_not_tuned() -> None:
    pool = FakePool(lambda _: outcome(Status.CRASH, reason="ValueError: mine"))

    with pytest.raises(OwnValuesFailError, match="mine"):
        await tuned(pool)

    assert len(pool.jobs) == 2, "one per search seed"


async def test_a_failing_sandbox_is_no_program_s_fault() -> None:
    pool = FakePool(lambda _: outcome(Status.SANDBOX_ERROR, reason="no zygote"))

    with pytest.raises(SandboxError, match="no zygote"):
        await tuned(pool)


async def test_random_search_tries_as_many_points() -> None:
    found = await tuned(FakePool(), method=Method.RANDOM, trials=11)

    assert len(found.trials) == 11
    assert [trial.number for trial in found.trials] == list(range(11))


async def test_a_larger_budget_begins_with_the_same_trials() -> None:
    small, large = [await tuned(FakePool(), trials=trials) for trials in (15, 30)]

    assert large.trials[:15] == small.trials
