from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.confirmation.remembered_runs import RememberedRuns, RememberingPool
from db.confirmations import Confirmation, Confirmations
from db.store import Store
from sandbox.jobs import Job, Outcome, Split, Status, Vitals
from tests.agent.fakes import FakePool, clock, outcome
from tests.db.builders import START, program, proposal, run

JOB = Job(source="new", seed=5, steps=40)
FOUND = outcome(
    bpb=0.1 + 0.2,
    curve=((0, 5.5), (39, 1 / 3)),
    fingerprint="ab",
    line=None,
    vitals=Vitals(gradient_norms=((0, 0.7),), resident_bytes=7),
)


@pytest.fixture
def confirmations(tmp_path: Path) -> Iterator[Confirmations]:
    with Store.create(tmp_path, run()) as store:
        store.add_proposal(proposal(), program())
        found = Confirmations(store)
        begun = Confirmation(number=1, program_id=program().id, begun_at=START, plan={}, facts={})
        found.begin(begun, {"sealed": (5,)})
        yield found


def remembered(confirmations: Confirmations) -> RememberedRuns:
    return RememberedRuns(confirmations, 1, program().id, clock())


async def test_a_run_is_trained_once_and_read_back_to_the_bit(
    confirmations: Confirmations,
) -> None:
    first, second = FakePool(lambda _: FOUND), FakePool()

    trained = await RememberingPool(first, remembered(confirmations), 0).run(JOB)
    read = await RememberingPool(second, remembered(confirmations), 0).run(JOB)

    assert trained == read == FOUND
    assert [job.vitals for job in first.jobs] == [True]
    assert second.jobs == []


async def test_the_same_text_asked_for_twice_at_once_is_trained_once(
    confirmations: Confirmations,
) -> None:
    pool = FakePool(lambda _: FOUND)
    remembering = RememberingPool(pool, remembered(confirmations), 0)

    both = await asyncio.gather(
        remembering.run(JOB), remembering.run(replace(JOB, source_name="other.py"))
    )

    assert list(both) == [FOUND, FOUND]
    assert len(pool.jobs) == 1


@pytest.mark.parametrize(
    "other",
    [
        replace(JOB, source="old"),
        replace(JOB, seed=6),
        replace(JOB, steps=20),
        replace(JOB, horizon=80),
        replace(JOB, split=Split.SEALED),
    ],
)
async def test_runs_that_differ_are_each_trained(confirmations: Confirmations, other: Job) -> None:
    pool = FakePool(lambda _: FOUND)
    runs = remembered(confirmations)
    for job in (JOB, other):
        await RememberingPool(pool, runs, 0).run(job)
    await RememberingPool(pool, runs, 1).run(JOB)

    assert len(pool.jobs) == 3
    assert runs.count == runs.trained == 3


async def test_a_failure_of_the_sandbox_is_not_remembered(confirmations: Confirmations) -> None:
    outcomes: list[Outcome] = [outcome(Status.SANDBOX_ERROR, reason="gone"), FOUND]
    pool = FakePool(lambda _: outcomes.pop(0))
    remembering = RememberingPool(pool, remembered(confirmations), 0)

    found = [(await remembering.run(JOB)).status for _ in range(2)]

    assert found == [Status.SANDBOX_ERROR, Status.OK]
