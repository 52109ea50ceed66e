"""A record of training runs: nothing is trained twice, nothing is mixed in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.tune.recorded_runs import MixedSettingsError, RecordedRuns
from sandbox.jobs import Gradients, Job, Split, Status
from tests.agent.fakes import SEED_SOURCE, FakePool, outcome


def job(seed: int = 1, **changes: Any) -> Job:
    fields: dict[str, Any] = {"source": SEED_SOURCE, "seed": seed, "steps": 40}
    return Job(**(fields | changes))


async def test_a_run_is_trained_once_also_by_whoever_comes_later(tmp_path: Path) -> None:
    file, pool = tmp_path / "runs.jsonl", FakePool()

    first = await RecordedRuns(pool, file).run(job())
    later = RecordedRuns(pool, file)
    second = await later.run(job())

    assert len(pool.jobs) == 1
    assert later.trained == 0
    assert second == first
    assert second.bpb == first.bpb


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"steps": 20},
        {"horizon": 80},
        {"split": Split.OUT_OF_DISTRIBUTION},
        {"source": SEED_SOURCE + "\n"},
    ],
)
async def test_a_run_that_differs_in_anything_is_another_one(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    pool = FakePool()
    runs = RecordedRuns(pool, tmp_path / "runs.jsonl")

    await runs.run(job())
    await runs.run(job(**changes))

    assert len(pool.jobs) == 2


async def test_a_run_that_is_asked_for_more_than_its_score_is_not_answered_from_the_record(
    tmp_path: Path,
) -> None:
    pool = FakePool()
    runs = RecordedRuns(pool, tmp_path / "runs.jsonl")
    plain = await runs.run(job())

    shown = await runs.run(job(evidence=True))
    altered = await runs.run(job(gradients=Gradients.ZERO))

    assert shown.evidence is not None
    assert altered.bpb != plain.bpb
    assert (await runs.run(job())).bpb == plain.bpb
    assert len(pool.jobs) == 3


async def test_a_failure_is_kept_with_its_reason(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    pool = FakePool(lambda _: outcome(Status.NAN, reason="the loss is not finite", line=7))
    await RecordedRuns(pool, file).run(job())

    kept = await RecordedRuns(pool, file).run(job())

    assert (kept.status, kept.reason, kept.line) == (Status.NAN, "the loss is not finite", 7)
    assert len(pool.jobs) == 1


@pytest.mark.parametrize("status", [Status.TIMEOUT_WALL, Status.OOM])
async def test_a_failure_that_a_busy_machine_may_have_caused_is_tried_again_by_the_next_command(
    tmp_path: Path, status: Status
) -> None:
    file, busy = tmp_path / "runs.jsonl", FakePool(lambda _: outcome(status, reason="too much"))
    runs = RecordedRuns(busy, file)
    await runs.run(job())
    await runs.run(job())

    later = await RecordedRuns(FakePool(), file).run(job())

    assert len(busy.jobs) == 1, "not by the same command"
    assert later.status is Status.OK


async def test_a_failure_of_the_sandbox_is_not_kept(tmp_path: Path) -> None:
    pool = FakePool(lambda _: outcome(Status.SANDBOX_ERROR, reason="no zygote"))
    runs = RecordedRuns(pool, tmp_path / "runs.jsonl")

    await runs.run(job())
    await runs.run(job())

    assert len(pool.jobs) == 2


async def test_a_line_that_a_crash_left_incomplete_is_cut_off(tmp_path: Path) -> None:
    file, pool = tmp_path / "runs.jsonl", FakePool()
    await RecordedRuns(pool, file).run(job(1))
    with file.open("a", encoding="utf-8") as stream:
        stream.write('{"program": "12')

    runs = RecordedRuns(pool, file)
    await runs.run(job(1))
    await runs.run(job(2))
    await RecordedRuns(pool, file).run(job(2))

    assert [j.seed for j in pool.jobs] == [1, 2]


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"device": "cuda"}, "device cpu, here it is cuda"),
        ({"compile": True}, "compile"),
        ({"versions": {"torch": "9"}}, "versions"),
        ({"corpus_digest": "1" * 64}, "corpus_digest"),
    ],
)
async def test_a_record_of_other_conditions_is_refused_with_the_one_that_differs(
    tmp_path: Path, facts: dict[str, object], named: str
) -> None:
    file, other = tmp_path / "runs.jsonl", FakePool()
    await RecordedRuns(FakePool(), file).run(job())
    other.facts = dict(facts)

    with pytest.raises(MixedSettingsError, match=named):
        RecordedRuns(other, file)


async def test_another_sandbox_level_is_no_other_condition(tmp_path: Path) -> None:
    file, other = tmp_path / "runs.jsonl", FakePool()
    await RecordedRuns(FakePool(), file).run(job())
    other.facts = {"sandbox_level": 4}

    await RecordedRuns(other, file).run(job())

    assert other.jobs == []


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text("hello\n", encoding="utf-8")

    with pytest.raises(MixedSettingsError, match="no record"):
        RecordedRuns(FakePool(), file)
