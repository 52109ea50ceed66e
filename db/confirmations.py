"""Keep the confirmations of a run: which seeds they spent, what they trained, what they came to.

A confirmation is written down before anything is trained for it, so that it counts as a look at
sealed text whatever becomes of it. The database itself refuses a seed that was spent before. The
programs that are trained may be variants of those in the lineage, at other learning rates or
sizes; that is why their runs are kept apart from the search's evaluations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, union

from db.errors import RecordError
from db.store import Store
from db.tables import (
    ConfirmationReportRow,
    ConfirmationRow,
    ConfirmationRunRow,
    ConfirmationSeedRow,
    EvaluationRow,
    LookRow,
)

__all__ = ["Confirmation", "ConfirmationRun", "Confirmations"]

STAGE = "confirm"  # of these runs in the ledger of looks


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """A confirmation that was begun.

    `number` counts the run's confirmations from 1. `plan` says what is to be trained, `facts` what
    the workers reported.
    """

    number: int
    program_id: str
    begun_at: datetime
    plan: Mapping[str, Any]
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmationRun:
    """One training run of a confirmation.

    Unique per confirmation, source (the sha256 of the program's text), size of the model (in
    doublings), split, steps, horizon and seed. `gradient_norms` holds (step, norm) pairs,
    `resident_bytes` the optimizer process's memory after the last step, None if unknown.
    """

    number: int
    source: str
    size: int
    split: str
    steps: int
    horizon: int
    seed: int
    status: str
    reason: str
    line: int | None
    bpb: float | None
    curve: tuple[tuple[int, float], ...]
    gradient_norms: tuple[tuple[int, float], ...]
    resident_bytes: int | None
    fingerprint: str | None
    jail_cpu_s: float
    train_cpu_s: float
    wall_s: float
    peak_memory_bytes: int
    sandbox_level: int
    unsafe: bool
    finished_at: datetime


class Confirmations:
    """The confirmations in a run's database. The caller keeps the store open."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> tuple[Confirmation, ...]:
        """All confirmations that were ever begun, finished or not."""
        columns = [getattr(ConfirmationRow, f.name) for f in fields(Confirmation)]
        query = select(*columns).order_by(ConfirmationRow.number)
        with self._transaction() as connection:
            return tuple(Confirmation(**row) for row in connection.execute(query).mappings())

    def begin(self, confirmation: Confirmation, seeds: Mapping[str, Sequence[int]]) -> None:
        """Write down a confirmation and the seeds it spends, by the part they are for.

        Raises:
            RecordError: the number or a seed was used before, or the program is unknown.
        """
        spent = [
            {"seed": seed, "number": confirmation.number, "part": part}
            for part, values in seeds.items()
            for seed in values
        ]
        values = {f.name: getattr(confirmation, f.name) for f in fields(Confirmation)}
        with self._transaction() as connection:
            used = _used_seeds(connection)
            again = [entry["seed"] for entry in spent if entry["seed"] in used]
            if again:
                raise RecordError(f"seed {again[0]} was used before")
            connection.execute(insert(ConfirmationRow), values)
            connection.execute(insert(ConfirmationSeedRow), spent)

    def seeds(self, number: int) -> dict[str, tuple[int, ...]]:
        """The seeds of a confirmation, by the part they are for."""
        query = (
            select(ConfirmationSeedRow.part, ConfirmationSeedRow.seed)
            .where(ConfirmationSeedRow.number == number)
            .order_by(ConfirmationSeedRow.seq)
        )
        found: dict[str, tuple[int, ...]] = {}
        with self._transaction() as connection:
            for part, seed in connection.execute(query):
                found[part] = (*found.get(part, ()), seed)
        return found

    def used_seeds(self) -> frozenset[int]:
        """Every seed that the search or a confirmation has used."""
        with self._transaction() as connection:
            return _used_seeds(connection)

    def add_run(self, run: ConfirmationRun, program_id: str) -> None:
        """Add a finished training run, and with it a line in the ledger of looks.

        Args:
            run: what came of it.
            program_id: the program in the lineage that it is a variant of.

        Raises:
            RecordError: there is such a run already, or no such confirmation or program.
        """
        look = {
            "at": run.finished_at,
            "program_id": program_id,
            "split": run.split,
            "stage": STAGE,
            "steps": run.steps,
            "seed": run.seed,
        }
        values = {f.name: getattr(run, f.name) for f in fields(ConfirmationRun)}
        with self._transaction() as connection:
            connection.execute(insert(ConfirmationRunRow), values)
            connection.execute(insert(LookRow), look)

    def runs(self, number: int) -> tuple[ConfirmationRun, ...]:
        """The training runs of a confirmation that are finished."""
        columns = [getattr(ConfirmationRunRow, f.name) for f in fields(ConfirmationRun)]
        query = (
            select(*columns)
            .where(ConfirmationRunRow.number == number)
            .order_by(ConfirmationRunRow.seq)
        )
        with self._transaction() as connection:
            return tuple(ConfirmationRun(**row) for row in connection.execute(query).mappings())

    def finish(self, number: int, report: Mapping[str, Any], now: datetime) -> None:
        """Write down what a confirmation came to.

        Raises:
            RecordError: it is finished already, or was never begun.
        """
        values = {"number": number, "finished_at": now, "report": report}
        with self._transaction() as connection:
            connection.execute(insert(ConfirmationReportRow), values)

    def report(self, number: int) -> Mapping[str, Any] | None:
        """What a confirmation came to; None if it is not finished."""
        query = select(ConfirmationReportRow.report).where(ConfirmationReportRow.number == number)
        with self._transaction() as connection:
            return connection.execute(query).scalar_one_or_none()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        # The store's own: one place turns what a database raises into errors of ours.
        with self._store._transaction() as connection:
            yield connection


def _used_seeds(connection: Connection) -> frozenset[int]:
    query = union(
        select(EvaluationRow.seed), select(LookRow.seed), select(ConfirmationSeedRow.seed)
    )
    return frozenset(connection.execute(query).scalars())
