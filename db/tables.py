"""The tables of a lineage database. One database holds one run.

Columns are named like the fields of `db.records`. Every table with an order of its own has `seq`,
which counts up in order of insertion. A change here needs a migration; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    LargeBinary,
    MetaData,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.columns import AnyText, Curve, JsonMapping, SeedList, UtcTime

__all__ = [
    "EvaluationRow",
    "EventRow",
    "LookRow",
    "ParentRow",
    "ProgramRow",
    "ProposalRow",
    "RunRow",
    "SessionRow",
    "Table",
    "VerdictRow",
]

Seq = Annotated[int, mapped_column(primary_key=True, autoincrement=True)]
Sha256 = Annotated[str, mapped_column(String(64))]
ProgramRef = Annotated[str, mapped_column(String(64), ForeignKey("programs.id"))]
Name = Annotated[str, mapped_column(String(64))]
Big = Annotated[int, mapped_column(BigInteger)]
Points = Annotated[tuple[tuple[int, float], ...], mapped_column(Curve)]
Seeds = Annotated[tuple[int, ...], mapped_column(SeedList)]


class Table(DeclarativeBase):
    """What all tables share: how constraints are named and Python types are stored."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  # SQLAlchemy reads a plain class attribute
        datetime: UtcTime,
        str: AnyText,
        Mapping[str, Any]: JsonMapping,
        Mapping[str, float]: JsonMapping,
    }


class RunRow(Table):
    """The run this database is about; the table has one row."""

    __tablename__ = "runs"

    id: Mapped[Name] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    seed: Mapped[Big]
    settings: Mapped[Mapping[str, Any]]
    facts: Mapped[Mapping[str, Any]]


class SessionRow(Table):
    """A stretch of time in which the run was going; a resumed run has several."""

    __tablename__ = "sessions"

    seq: Mapped[Seq]
    started_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]


class ProgramRow(Table):
    """A program.

    `source` is deflated, with the text of `base_id`, if any, as the dictionary (see
    `db.sources`). `commit_sha` is its commit in git, once there is one.
    """

    __tablename__ = "programs"

    seq: Mapped[Seq]
    id: Mapped[Sha256] = mapped_column(unique=True)
    ordinal: Mapped[int] = mapped_column(unique=True)
    source: Mapped[bytes] = mapped_column(LargeBinary)
    base_id: Mapped[ProgramRef | None]
    normalised: Mapped[Sha256]
    created_at: Mapped[datetime]
    commit_sha: Mapped[str | None] = mapped_column(String(40))


class ProposalRow(Table):
    """One attempt to change a program, patch included, whatever came of it."""

    __tablename__ = "proposals"

    seq: Mapped[Seq]
    ordinal: Mapped[int] = mapped_column(unique=True)
    proposer: Mapped[str]
    description: Mapped[str]
    patch: Mapped[str]
    status: Mapped[Name]
    reason: Mapped[str]
    program_id: Mapped[ProgramRef | None]
    created_at: Mapped[datetime]
    cost: Mapped[Mapping[str, float]]


class ParentRow(Table):
    """A parent of a proposal; `position` 0 is the patched one."""

    __tablename__ = "parents"

    proposal_ordinal: Mapped[int] = mapped_column(ForeignKey("proposals.ordinal"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    program_id: Mapped[ProgramRef]


class EvaluationRow(Table):
    """One training run of a program, with its learning curve."""

    __tablename__ = "evaluations"
    __table_args__ = (
        UniqueConstraint("program_id", "split", "steps", "horizon", "gradients", "seed"),
        CheckConstraint("(bpb IS NOT NULL) = (status = 'ok')", name="only_ok_has_bpb"),
    )

    seq: Mapped[Seq]
    program_id: Mapped[ProgramRef]
    stage: Mapped[Name]
    split: Mapped[Name]
    steps: Mapped[int]
    horizon: Mapped[int]
    gradients: Mapped[Name]
    seed: Mapped[Big]
    status: Mapped[Name]
    reason: Mapped[str]
    line: Mapped[int | None]
    bpb: Mapped[float | None]
    curve: Mapped[Points]
    fingerprint: Mapped[str | None]
    jail_cpu_s: Mapped[float]
    train_cpu_s: Mapped[float]
    wall_s: Mapped[float]
    peak_memory_bytes: Mapped[Big]
    output_tail: Mapped[str]
    sandbox_level: Mapped[int]
    unsafe: Mapped[bool]
    finished_at: Mapped[datetime]
    evidence: Mapped[Mapping[str, Any] | None]


class VerdictRow(Table):
    """What was decided about a program in a stage; a stage may decide more than once."""

    __tablename__ = "verdicts"

    seq: Mapped[Seq]
    program_id: Mapped[ProgramRef] = mapped_column(index=True)
    stage: Mapped[Name]
    ordinal: Mapped[int]
    decision: Mapped[Name]
    reason: Mapped[str]
    reference_id: Mapped[ProgramRef | None]
    effect_bpb: Mapped[float | None]
    interval_low: Mapped[float | None]
    interval_high: Mapped[float | None]
    pairs: Mapped[int]
    seeds: Mapped[Seeds]
    decided_at: Mapped[datetime]
    log_e: Mapped[float | None]
    stopped: Mapped[Name | None]
    is_sample: Mapped[bool]


class LookRow(Table):
    """The ledger of looks: each time a program was measured on a split, and for which stage."""

    __tablename__ = "looks"

    seq: Mapped[Seq]
    at: Mapped[datetime]
    program_id: Mapped[ProgramRef]
    split: Mapped[Name] = mapped_column(index=True)
    stage: Mapped[Name]
    steps: Mapped[int]
    seed: Mapped[Big]


class EventRow(Table):
    """Something that happened to the run itself."""

    __tablename__ = "events"

    seq: Mapped[Seq]
    at: Mapped[datetime]
    kind: Mapped[Name]
    detail: Mapped[Mapping[str, Any]]


# -- confirmations (see db.confirmations) ---------------------------------------------------------


class ConfirmationRow(Table):
    """A confirmation that was begun: one look of the run at sealed text."""

    __tablename__ = "confirmations"

    number: Mapped[int] = mapped_column(primary_key=True)
    program_id: Mapped[ProgramRef]
    begun_at: Mapped[datetime]
    plan: Mapped[Mapping[str, Any]]
    facts: Mapped[Mapping[str, Any]]


class ConfirmationSeedRow(Table):
    """A seed spent on a confirmation; no two confirmations of a run share one."""

    __tablename__ = "confirmation_seeds"

    seq: Mapped[Seq]
    seed: Mapped[Big] = mapped_column(unique=True)
    number: Mapped[int] = mapped_column(ForeignKey("confirmations.number"))
    part: Mapped[Name]


class ConfirmationRunRow(Table):
    """A training run made for a confirmation, of a program that need not be in the lineage."""

    __tablename__ = "confirmation_runs"
    __table_args__ = (
        UniqueConstraint("number", "source", "size", "split", "steps", "horizon", "seed"),
        CheckConstraint("(bpb IS NOT NULL) = (status = 'ok')", name="only_ok_has_bpb"),
    )

    seq: Mapped[Seq]
    number: Mapped[int] = mapped_column(ForeignKey("confirmations.number"))
    source: Mapped[Sha256]
    size: Mapped[int]
    split: Mapped[Name]
    steps: Mapped[int]
    horizon: Mapped[int]
    seed: Mapped[Big]
    status: Mapped[Name]
    reason: Mapped[str]
    line: Mapped[int | None]
    bpb: Mapped[float | None]
    curve: Mapped[Points]
    gradient_norms: Mapped[Points]
    resident_bytes: Mapped[int | None] = mapped_column(BigInteger)
    fingerprint: Mapped[str | None]
    jail_cpu_s: Mapped[float]
    train_cpu_s: Mapped[float]
    wall_s: Mapped[float]
    peak_memory_bytes: Mapped[Big]
    sandbox_level: Mapped[int]
    unsafe: Mapped[bool]
    finished_at: Mapped[datetime]


class ConfirmationReportRow(Table):
    """What a finished confirmation came to."""

    __tablename__ = "confirmation_reports"

    number: Mapped[int] = mapped_column(ForeignKey("confirmations.number"), primary_key=True)
    finished_at: Mapped[datetime]
    report: Mapped[Mapping[str, Any]]
