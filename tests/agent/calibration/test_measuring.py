from __future__ import annotations

import pytest

from agent.calibration import measuring
from agent.calibration.measuring import Change, MeasuringError, changed_programs, measure_pool
from agent.calibration.pool import Pool, PoolError
from sandbox.baseline import seed_program
from sandbox.jobs import Job, Outcome, Status
from sandbox.knobs import read_knobs
from tests.agent.fakes import SEED_SOURCE, FakePool, outcome, scored

CHANGES = (
    Change(name="lr x2", factors={"MUON.lr": 2.0}),
    Change(name="lr .1", values={"MUON.lr": 0.1}),
    Change(name="nothing", values={"MUON.lr": 0.02}),
)


@pytest.fixture(autouse=True)
def _small_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "CHANGES", CHANGES)


async def test_every_changed_program_is_compared_with_the_tuned_one_on_all_seeds() -> None:
    told: list[tuple[int, int]] = []

    pool = await measure_pool(
        FakePool(), SEED_SOURCE, range(30, 40), slots=2, watch=lambda *done: told.append(done)
    )

    assert [one.name for one in pool.comparisons] == ["lr x2 against tuned", "lr .1 against tuned"]
    assert {one.seeds for one in pool.comparisons} == {tuple(range(30, 40))}
    first = scored(Job(source=SEED_SOURCE, seed=30, steps=40)).bpb
    assert pool.comparisons[0].reference[0] == pytest.approx(first, abs=1e-6)
    assert pool.comparisons[0].candidate != pool.comparisons[1].candidate
    assert pool.origin.endswith("10 seeds from 30 on")
    assert not pool.simulated
    assert told == [(number, 30) for number in range(1, 31)]


async def test_the_number_of_slots_changes_nothing() -> None:
    async def measured(slots: int) -> Pool:
        return await measure_pool(FakePool(), SEED_SOURCE, range(8), slots=slots)

    assert await measured(1) == await measured(5)


async def test_a_failing_program_leaves_no_hole_in_a_pool() -> None:
    def fail_at_twice_the_rate(job: Job) -> Outcome:
        if job.seed == 3 and read_knobs(job.source)["MUON.lr"].value == 0.04:
            return outcome(Status.NAN, reason="the loss is nan")
        return scored(job)

    with pytest.raises(MeasuringError, match="lr x2 failed on seed 3, nan"):
        await measure_pool(FakePool(fail_at_twice_the_rate), SEED_SOURCE, range(8), slots=1)


async def test_too_few_seeds_are_refused() -> None:
    with pytest.raises(PoolError, match="expected 8 or more distinct seeds, found 7"):
        await measure_pool(FakePool(), SEED_SOURCE, range(7), slots=1)


@pytest.mark.parametrize(("profile", "programs"), [("micro", 11), ("cpu", 10)])
def test_the_changes_fit_the_tuned_programs(
    profile: str, programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()

    found = changed_programs(seed_program(profile))

    # Where nothing decays, twice as much is nothing either.
    assert len(found) == len(set(found.values())) == programs
