"""Make the tables of a lineage."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "m0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table, those referred to first."""
    _create_run_tables()
    _create_program_tables()
    _create_evaluations()
    _create_judgement_tables()


def _program_id(table: str, column: str = "program_id") -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], ["programs.id"], name=f"fk_{table}_{column}")


def _create_run_tables() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
    )
    op.create_table(
        "sessions",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("started_at", sa.DateTime, nullable=False),
        sa.Column("last_seen_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_sessions"),
    )
    op.create_table(
        "events",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_events"),
    )


def _create_program_tables() -> None:
    op.create_table(
        "programs",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("source", sa.LargeBinary, nullable=False),
        sa.Column("base_id", sa.String(64), nullable=True),
        sa.Column("normalised", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("commit_sha", sa.String(40), nullable=True),
        sa.PrimaryKeyConstraint("seq", name="pk_programs"),
        sa.UniqueConstraint("id", name="uq_programs_id"),
        sa.UniqueConstraint("ordinal", name="uq_programs_ordinal"),
        _program_id("programs", "base_id"),
    )
    op.create_table(
        "proposals",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("proposer", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("patch", sa.Text, nullable=False),
        sa.Column("status", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("program_id", sa.String(64), nullable=True),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("cost", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_proposals"),
        sa.UniqueConstraint("ordinal", name="uq_proposals_ordinal"),
        _program_id("proposals"),
    )
    op.create_table(
        "parents",
        sa.Column("proposal_ordinal", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("program_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("proposal_ordinal", "position", name="pk_parents"),
        sa.ForeignKeyConstraint(
            ["proposal_ordinal"], ["proposals.ordinal"], name="fk_parents_proposal_ordinal"
        ),
        _program_id("parents"),
    )


def _create_evaluations() -> None:
    op.create_table(
        "evaluations",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("program_id", sa.String(64), nullable=False),
        sa.Column("stage", sa.String(64), nullable=False),
        sa.Column("split", sa.String(64), nullable=False),
        sa.Column("steps", sa.Integer, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("line", sa.Integer, nullable=True),
        sa.Column("bpb", sa.Double, nullable=True),
        sa.Column("curve", sa.LargeBinary, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=True),
        sa.Column("jail_cpu_s", sa.Double, nullable=False),
        sa.Column("train_cpu_s", sa.Double, nullable=False),
        sa.Column("wall_s", sa.Double, nullable=False),
        sa.Column("peak_memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("output_tail", sa.Text, nullable=False),
        sa.Column("sandbox_level", sa.Integer, nullable=False),
        sa.Column("unsafe", sa.Boolean, nullable=False),
        sa.Column("finished_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_evaluations"),
        sa.UniqueConstraint(
            "program_id",
            "split",
            "steps",
            "seed",
            name="uq_evaluations_program_id_split_steps_seed",
        ),
        sa.CheckConstraint(
            "(bpb IS NOT NULL) = (status = 'ok')", name="ck_evaluations_only_ok_has_bpb"
        ),
        _program_id("evaluations"),
    )


def _create_judgement_tables() -> None:
    op.create_table(
        "verdicts",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("program_id", sa.String(64), nullable=False),
        sa.Column("stage", sa.String(64), nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("decision", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("reference_id", sa.String(64), nullable=True),
        sa.Column("effect_bpb", sa.Double, nullable=True),
        sa.Column("interval_low", sa.Double, nullable=True),
        sa.Column("interval_high", sa.Double, nullable=True),
        sa.Column("pairs", sa.Integer, nullable=False),
        sa.Column("seeds", sa.JSON, nullable=False),
        sa.Column("decided_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_verdicts"),
        _program_id("verdicts"),
        _program_id("verdicts", "reference_id"),
    )
    op.create_index("ix_verdicts_program_id", "verdicts", ["program_id"])
    op.create_table(
        "looks",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("program_id", sa.String(64), nullable=False),
        sa.Column("split", sa.String(64), nullable=False),
        sa.Column("stage", sa.String(64), nullable=False),
        sa.Column("steps", sa.Integer, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_looks"),
        _program_id("looks"),
    )
    op.create_index("ix_looks_split", "looks", ["split"])
