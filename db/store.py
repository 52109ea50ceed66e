"""Keep a run's lineage in SQL: the authority on what was tried and how it scored.

A `Store` is a folder with the database in it. Every method is one transaction, synchronous and
short; when an `add_…` method has returned, its record survives the death of the process. Records
are never changed once added. They come back equal to what went in, and in the order of insertion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import ColumnElement, Connection, Engine, func, insert, select, update
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError

from db.errors import RecordError, StoreError
from db.lock import FolderLock
from db.records import Evaluation, Event, Look, Program, Proposal, Run, Score, Verdict
from db.schema import connect, is_blank, migrate, require_current
from db.sources import Sources
from db.tables import (
    EvaluationRow,
    EventRow,
    LookRow,
    ParentRow,
    ProgramRow,
    ProposalRow,
    RunRow,
    SessionRow,
    VerdictRow,
)

__all__ = ["DATABASE", "RecordError", "Store", "StoreError"]

DATABASE = "lineage.db"

# Programs are read in pages, so that no reader holds all sources in memory.
_PAGE = 500

_COUNTED = {
    "proposals": ProposalRow,
    "programs": ProgramRow,
    "evaluations": EvaluationRow,
    "verdicts": VerdictRow,
    "looks": LookRow,
    "events": EventRow,
}

_Record = TypeVar("_Record", Evaluation, Event, Look, Run, Score, Verdict)
_SequencedRow = type[EvaluationRow] | type[EventRow] | type[LookRow] | type[VerdictRow]


class Store:
    """The lineage of one run. Made by `create` or `open`; close it, or use it in a `with`."""

    def __init__(self, engine: Engine, lock: FolderLock | None, run: Run) -> None:
        self._engine = engine
        self._lock = lock
        self._run = run
        self._session: int | None = None
        self._sources = Sources()

    # -- opening and closing ------------------------------------------------------------------

    @classmethod
    def create(cls, folder: Path, run: Run) -> Self:
        """Start the lineage of a new run, for this process alone.

        Args:
            folder: made if it is not there, with its parents.
            run: what the lineage is about.

        Raises:
            StoreError: the folder cannot be written, is in use, or holds a run already.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot make the folder {folder} ({error.strerror}): choose another place"
            ) from error
        lock = FolderLock(folder)
        with _opening(folder, lock, writable=True) as (engine, connection):
            migrate(connection)
            if _find_run(connection) is not None:
                raise StoreError(f"{folder} holds a run already: resume it, or choose another")
            connection.execute(insert(RunRow), _values(run))
        return cls(engine, lock, run)

    @classmethod
    def open(cls, folder: Path, *, exclusive: bool = True) -> Self:
        """Open the lineage of an existing run.

        Args:
            folder: that of the run.
            exclusive: keep other processes out, bring old tables up to date and allow changes.
                Otherwise only read, also while another process is at work on it.

        Raises:
            StoreError: there is no run, it is in use, or of a version that cannot be read.
        """
        database = folder / DATABASE
        if not database.is_file():
            raise StoreError(f"{folder} holds no run (no {DATABASE}): give the folder of a run")
        lock = FolderLock(folder) if exclusive else None
        with _opening(folder, lock, writable=exclusive) as (engine, connection):
            run = None
            if not is_blank(connection):
                if exclusive:
                    migrate(connection)
                else:
                    require_current(connection)
                run = _find_run(connection)
            if run is None:
                raise StoreError(
                    f"{folder} holds no run, its {DATABASE} is empty, as after an interrupted "
                    "start: delete the folder and start again"
                )
        return cls(engine, lock, run)

    def close(self) -> None:
        """Let go of the database and of the folder; closing twice does nothing."""
        _abandon(self._engine, self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- the run and its sessions -------------------------------------------------------------

    def run(self) -> Run:
        """The run this lineage is about."""
        return self._run

    def begin_session(self, now: datetime) -> None:
        """Note that the run started or resumed; from here on time counts as spent on it."""
        with self._transaction() as connection:
            result = connection.execute(
                insert(SessionRow).returning(SessionRow.seq),
                {"started_at": now, "last_seen_at": now},
            )
            self._session = result.scalar_one()

    def touch_session(self, now: datetime) -> None:
        """Note that the run is still going.

        Raises:
            RecordError: no session was begun.
        """
        if self._session is None:
            raise RecordError("no session was begun: call begin_session first")
        with self._transaction() as connection:
            self._see(connection, now)

    def elapsed_s(self) -> float:
        """How long the run has been going, over all its sessions, as far as it was noted."""
        query = select(SessionRow.started_at, SessionRow.last_seen_at)
        with self._transaction() as connection:
            spans = [last_seen - started for started, last_seen in connection.execute(query)]
        return sum(spans, timedelta()).total_seconds()

    # -- adding -------------------------------------------------------------------------------

    def add_proposal(self, proposal: Proposal, program: Program | None = None) -> None:
        """Add a proposal with its parents and, when it led to a new one, its program.

        All or nothing. The seed program comes in like any other, by a proposal without parents.

        Raises:
            RecordError: the ordinal or the program is known already, a parent is not, or the
                program is not the one the proposal names.
        """
        if program is not None and program.id != proposal.program_id:
            raise RecordError(f"proposal of {proposal.program_id} comes with program {program.id}")
        parents = [
            {"proposal_ordinal": proposal.ordinal, "position": position, "program_id": parent}
            for position, parent in enumerate(proposal.parents)
        ]
        with self._transaction() as connection:
            if program is not None:
                self._sources.add(connection, program)
            connection.execute(insert(ProposalRow), _values(proposal, leave_out="parents"))
            if parents:
                connection.execute(insert(ParentRow), parents)

    def add_evaluation(self, evaluation: Evaluation) -> None:
        """Add a finished training run, and with it a line in the ledger of looks.

        The session, if one was begun, is seen at the time the evaluation finished.

        Raises:
            RecordError: the program is unknown, or has an evaluation that differs in nothing that
                makes it unique.
        """
        look = {
            "at": evaluation.finished_at,
            "program_id": evaluation.program_id,
            "split": evaluation.split,
            "stage": evaluation.stage,
            "steps": evaluation.steps,
            "seed": evaluation.seed,
        }
        with self._transaction() as connection:
            connection.execute(insert(EvaluationRow), _values(evaluation))
            connection.execute(insert(LookRow), look)
            self._see(connection, evaluation.finished_at)

    def add_verdict(self, verdict: Verdict) -> None:
        """Add a decision.

        Raises:
            RecordError: the program or the one it was compared to is unknown.
        """
        with self._transaction() as connection:
            connection.execute(insert(VerdictRow), _values(verdict))

    def add_event(self, event: Event) -> None:
        """Add something that happened to the run."""
        with self._transaction() as connection:
            connection.execute(insert(EventRow), _values(event))

    # -- reading ------------------------------------------------------------------------------

    def programs(self) -> Iterator[Program]:
        """All programs, read page by page as the iterator advances."""
        last = 0
        while page := self._read_programs(ProgramRow.seq > last, limit=_PAGE):
            yield from (program for _, program in page)
            last, _ = page[-1]

    def program(self, prefix: str) -> Program:
        """The program whose id begins with `prefix`.

        Raises:
            StoreError: there is none, or more than one.
        """
        prefix = prefix.lower()
        if not re.fullmatch("[0-9a-f]{1,64}", prefix):
            raise StoreError(f"{prefix!r} is not the beginning of a program id: give hex digits")
        # "g" comes after every hex digit; a range uses the index where LIKE would not.
        found = self._read_programs(ProgramRow.id >= prefix, ProgramRow.id < prefix + "g", limit=2)
        if not found:
            raise StoreError(f"no program id begins with {prefix}")
        if len(found) > 1:
            raise StoreError(f"more than one program id begins with {prefix}: give more digits")
        return found[0][1]

    def proposals(self) -> tuple[Proposal, ...]:
        """All proposals, whatever came of them."""
        columns = [getattr(ProposalRow, f.name) for f in fields(Proposal) if f.name != "parents"]
        links = select(ParentRow.proposal_ordinal, ParentRow.program_id).order_by(
            ParentRow.proposal_ordinal, ParentRow.position
        )
        with self._transaction() as connection:
            parents = {
                ordinal: tuple(parent for _, parent in group)
                for ordinal, group in groupby(connection.execute(links), key=lambda link: link[0])
            }
            rows = connection.execute(select(*columns).order_by(ProposalRow.seq)).mappings()
            return tuple(Proposal(**row, parents=parents.get(row["ordinal"], ())) for row in rows)

    def evaluations(self, program_id: str | None = None) -> tuple[Evaluation, ...]:
        """All evaluations, or those of one program."""
        return self._read(Evaluation, EvaluationRow, _of_program(EvaluationRow, program_id))

    def scores(self) -> tuple[Score, ...]:
        """The scores of all training runs that ended well, without all else they showed."""
        return self._read(Score, EvaluationRow, [EvaluationRow.status == "ok"])

    def verdicts(self, program_id: str | None = None) -> tuple[Verdict, ...]:
        """All verdicts, or those on one program."""
        return self._read(Verdict, VerdictRow, _of_program(VerdictRow, program_id))

    def looks(self, split: str | None = None) -> tuple[Look, ...]:
        """The ledger of looks, or those at one split."""
        return self._read(Look, LookRow, [] if split is None else [LookRow.split == split])

    def looks_by_split(self) -> dict[str, int]:
        """How often each split was looked at."""
        query = (
            select(LookRow.split, func.count().label("looks"))
            .group_by(LookRow.split)
            .order_by(LookRow.split)
        )
        with self._transaction() as connection:
            return {row.split: row.looks for row in connection.execute(query)}

    def events(self) -> tuple[Event, ...]:
        """All events."""
        return self._read(Event, EventRow, [])

    def counts(self) -> dict[str, int]:
        """How many records of each kind there are. Scans the tables: for summaries."""
        query = select(
            *(
                select(func.count()).select_from(row).scalar_subquery().label(name)
                for name, row in _COUNTED.items()
            )
        )
        with self._transaction() as connection:
            return dict(connection.execute(query).mappings().one())

    # -- what git has of it -------------------------------------------------------------------

    def set_commit(self, program_id: str, sha: str) -> None:
        """Note which git commit holds a program.

        Raises:
            RecordError: the program is unknown.
        """
        change = update(ProgramRow).where(ProgramRow.id == program_id).values(commit_sha=sha)
        with self._transaction() as connection:
            if connection.execute(change).rowcount != 1:
                raise RecordError(f"no program {program_id} to note a commit for")

    def commit_of(self, program_id: str) -> str | None:
        """The git commit of a program, if one was noted."""
        query = select(ProgramRow.commit_sha).where(ProgramRow.id == program_id)
        with self._transaction() as connection:
            return connection.execute(query).scalar_one_or_none()

    def forget_commits(self) -> None:
        """Note that no program has a commit any more: the git repository was made anew."""
        with self._transaction() as connection:
            connection.execute(update(ProgramRow).values(commit_sha=None))

    def programs_without_commit(self) -> tuple[Program, ...]:
        """The programs no commit was noted for, parents before children."""
        found = self._read_programs(ProgramRow.commit_sha.is_(None), limit=None)
        return tuple(program for _, program in found)

    # -- inside -------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError as error:
            raise RecordError(f"the lineage refuses a record: {error.orig}") from error
        except OperationalError as error:
            raise StoreError(
                f"cannot use {self._engine.url.database} ({error.orig}): check the disk and your "
                "rights to the folder, then resume the run"
            ) from error

    def _see(self, connection: Connection, now: datetime) -> None:
        """Move the end of the current session to `now`, never backwards."""
        if self._session is not None:
            connection.execute(
                update(SessionRow)
                .where(SessionRow.seq == self._session, SessionRow.last_seen_at < now)
                .values(last_seen_at=now)
            )

    def _read_programs(
        self, *where: ColumnElement[bool], limit: int | None
    ) -> list[tuple[int, Program]]:
        with self._transaction() as connection:
            return self._sources.read(connection, *where, limit=limit)

    def _read(
        self, kind: type[_Record], row: _SequencedRow, where: list[ColumnElement[bool]]
    ) -> tuple[_Record, ...]:
        columns = [getattr(row, f.name) for f in fields(kind)]
        query = select(*columns).where(*where).order_by(row.seq)
        with self._transaction() as connection:
            return tuple(kind(**found) for found in connection.execute(query).mappings())


@contextmanager
def _opening(
    folder: Path, lock: FolderLock | None, *, writable: bool
) -> Iterator[tuple[Engine, Connection]]:
    """Give an engine and a transaction to look around in; if that fails, leave nothing open."""
    engine = connect(folder / DATABASE, writable=writable)
    try:
        with engine.begin() as connection:
            yield engine, connection
    except BaseException as error:
        _abandon(engine, lock)
        if isinstance(error, DatabaseError):
            raise StoreError(
                f"cannot open {folder / DATABASE} ({error.orig}): give the folder of a run, one "
                "you may write to"
            ) from error
        raise


def _abandon(engine: Engine, lock: FolderLock | None) -> None:
    engine.dispose()
    if lock is not None:
        lock.release()


def _find_run(connection: Connection) -> Run | None:
    columns = [getattr(RunRow, f.name) for f in fields(Run)]
    row = connection.execute(select(*columns)).mappings().one_or_none()
    return None if row is None else Run(**row)


def _of_program(
    row: type[EvaluationRow] | type[VerdictRow], program_id: str | None
) -> list[ColumnElement[bool]]:
    return [] if program_id is None else [row.program_id == program_id]


def _values(
    record: Evaluation | Event | Proposal | Run | Verdict, leave_out: str = ""
) -> Mapping[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields(record) if f.name != leave_out}
