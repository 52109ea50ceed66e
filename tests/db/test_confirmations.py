"""Confirmations in a run's database: written before they train, each seed once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from db.confirmations import Confirmation, ConfirmationRun, Confirmations
from db.store import RecordError, Store
from tests.db.builders import after, evaluation, program, proposal, run

BEGUN = Confirmation(
    number=1,
    program_id=program().id,
    begun_at=after(5),
    plan={"pairs": 20, "quick": False},
    facts={"device": "cpu", "versions": {"torch": "2"}},
)
SEEDS = {"sealed": (2**40, 12), "rates": (13,)}


def trained(**changes: Any) -> ConfirmationRun:
    fields: dict[str, Any] = {
        "number": 1,
        "source": "ab" * 32,
        "size": -1,
        "split": "sealed",
        "steps": 400,
        "horizon": 400,
        "seed": 12,
        "status": "ok",
        "reason": "",
        "line": None,
        "bpb": 0.1 + 0.2,
        "curve": ((0, 5.5), (399, 1 / 3)),
        "gradient_norms": ((0, 0.7), (399, float("inf"))),
        "resident_bytes": 3 << 31,
        "fingerprint": "abc",
        "jail_cpu_s": 1.5,
        "train_cpu_s": 4.5,
        "wall_s": 6.25,
        "peak_memory_bytes": 3 << 30,
        "sandbox_level": 2,
        "unsafe": False,
        "finished_at": after(60),
    }
    return ConfirmationRun(**(fields | changes))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "run", run()) as store:
        store.add_proposal(proposal(), program())
        yield store


@pytest.fixture
def begun(store: Store) -> Confirmations:
    confirmations = Confirmations(store)
    confirmations.begin(BEGUN, SEEDS)
    return confirmations


def test_a_confirmation_and_its_seeds_come_back_after_reopening(
    begun: Confirmations, store: Store, tmp_path: Path
) -> None:
    store.close()

    with Store.open(tmp_path / "run", exclusive=False) as reopened:
        again = Confirmations(reopened)
        assert again.all() == (BEGUN,)
        assert again.seeds(1) == SEEDS
        assert again.report(1) is None


def test_a_training_run_comes_back_to_the_bit(begun: Confirmations) -> None:
    failed = trained(seed=13, status="nan", bpb=None, resident_bytes=None, line=3, reason="nan")
    for one in (trained(), failed):
        begun.add_run(one, program().id)

    assert begun.runs(1) == (trained(), failed)
    assert begun.runs(2) == ()


def test_every_training_run_is_a_line_in_the_ledger_of_looks(
    begun: Confirmations, store: Store
) -> None:
    begun.add_run(trained(), program().id)

    (look,) = store.looks("sealed")
    assert (look.program_id, look.stage, look.seed) == (program().id, "confirm", 12)


def test_the_same_training_run_is_not_kept_twice(begun: Confirmations, store: Store) -> None:
    begun.add_run(trained(), program().id)

    with pytest.raises(RecordError):
        begun.add_run(trained(), program().id)
    assert len(store.looks()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "cd" * 32},
        {"size": 0},
        {"split": "ood"},
        {"steps": 200},
        {"horizon": 800},
        {"seed": 13},
    ],
)
def test_runs_that_differ_in_anything_that_counts_are_two(
    begun: Confirmations, changes: dict[str, Any]
) -> None:
    begun.add_run(trained(), program().id)
    begun.add_run(trained(**changes), program().id)

    assert len(begun.runs(1)) == 2


def test_a_seed_of_an_earlier_confirmation_is_refused_and_nothing_begun(
    begun: Confirmations,
) -> None:
    with pytest.raises(RecordError, match="seed 12 was used"):
        begun.begin(replace(BEGUN, number=2), {"sealed": (99, 12)})

    assert begun.all() == (BEGUN,)
    assert 99 not in begun.used_seeds()


def test_a_seed_of_the_search_is_refused(store: Store) -> None:
    store.add_evaluation(evaluation(program().id, seed=77))

    with pytest.raises(RecordError, match="seed 77 was used"):
        Confirmations(store).begin(BEGUN, {"sealed": (77,)})


def test_a_report_is_kept_once(begun: Confirmations) -> None:
    begun.finish(1, {"level": 3}, after(100))

    with pytest.raises(RecordError):
        begun.finish(1, {"level": 5}, after(101))
    assert begun.report(1) == {"level": 3}
