from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.calibration.plants import Kind, Plant
from agent.calibration.trial import TrialError, differences_of, put_through
from agent.evaluations import SandboxError
from sandbox.jobs import Job, Outcome, Split, Status
from sandbox.knobs import set_knobs
from tests.agent.fakes import SEED_SOURCE, FakePool, outcome, scored, settings


def plant(lr: float) -> Plant:
    """A candidate that differs from the small optimizer by its learning rate; .1 is best."""
    return Plant(
        name=f"lr {lr:g}",
        kind=Kind.GAIN,
        incumbent=SEED_SOURCE,
        candidate=set_knobs(SEED_SOURCE, {"MUON.lr": lr}),
    )


async def test_a_gain_is_promoted_and_claimed_on_fresh_seeds(tmp_path: Path) -> None:
    pool = FakePool()

    trial = await put_through(pool, plant(0.1), 3, settings=settings(seed=5), folder=tmp_path / "r")

    assert (trial.plant, trial.number, trial.ended_at) == ("lr 0.1", 3, "replicate")
    assert trial.promoted
    assert trial.claimed is True
    assert trial.race_pairs >= 2
    assert trial.race_effect_bpb == pytest.approx(-0.048, abs=0.01)
    assert trial.runs == len(pool.jobs)
    claimed = {job.seed for job in pool.jobs[-40:]}
    assert len(claimed) == 20
    assert claimed.isdisjoint(job.seed for job in pool.jobs[:-40])
    assert {job.split for job in pool.jobs} == {Split.SEARCH}


async def test_a_candidate_that_is_worse_is_not_promoted_and_nothing_is_claimed(
    tmp_path: Path,
) -> None:
    trial = await put_through(
        FakePool(), plant(0.005), 0, settings=settings(seed=5), folder=tmp_path / "r"
    )

    assert not trial.promoted
    assert trial.claimed is None
    assert trial.ended_at in {"screen", "race"}


async def test_an_identical_candidate_does_not_get_beyond_the_intake(tmp_path: Path) -> None:
    commented = SEED_SOURCE.replace("MUON = Knobs(", "MUON = Knobs(  # the same")
    same = replace(plant(0.1), candidate=commented)

    trial = await put_through(FakePool(), same, 0, settings=settings(), folder=tmp_path / "r")

    assert (trial.ended_at, trial.promoted, trial.race_pairs) == ("intake", False, 0)
    assert trial.reason.startswith("same source")


async def test_a_run_that_cannot_begin_is_no_candidates_fault(tmp_path: Path) -> None:
    failing = replace(plant(0.1), incumbent=set_knobs(SEED_SOURCE, {"MUON.lr": 0.45}))

    with pytest.raises(TrialError, match=r"lr 0.1: the run ended before its candidate"):
        await put_through(FakePool(), failing, 0, settings=settings(), folder=tmp_path / "r")


async def test_differences_are_candidate_minus_incumbent_by_seed() -> None:
    found = await differences_of(FakePool(), plant(0.1), [4, 9])

    pool = FakePool()
    by_hand = [
        scored(Job(source=source, seed=seed, steps=pool.ready.steps)).bpb or 0.0
        for seed in (4, 9)
        for source in (plant(0.1).candidate, SEED_SOURCE)
    ]
    assert found == (by_hand[0] - by_hand[1], by_hand[2] - by_hand[3])


@pytest.mark.parametrize(
    ("status", "error"), [(Status.NAN, TrialError), (Status.SANDBOX_ERROR, SandboxError)]
)
async def test_a_failure_is_raised_by_itself(status: Status, error: type[Exception]) -> None:
    def fail(_job: Job) -> Outcome:
        return outcome(status, reason="no")

    with pytest.raises(error):
        await differences_of(FakePool(fail), plant(0.1), [4, 9])
