"""Make the tables of confirmations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "m0004"
down_revision = "m0003"
branch_labels = None
depends_on = None

_UNIQUE = ("number", "source", "size", "split", "steps", "horizon", "seed")


def upgrade() -> None:
    """Create the tables; there was no confirmation before."""
    op.create_table(
        "confirmations",
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("program_id", sa.String(64), nullable=False),
        sa.Column("begun_at", sa.DateTime, nullable=False),
        sa.Column("plan", sa.JSON, nullable=False),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_confirmations"),
        sa.ForeignKeyConstraint(
            ["program_id"], ["programs.id"], name="fk_confirmations_program_id"
        ),
    )
    op.create_table(
        "confirmation_seeds",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("part", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_confirmation_seeds"),
        sa.UniqueConstraint("seed", name="uq_confirmation_seeds_seed"),
        _number("confirmation_seeds"),
    )
    _create_runs()
    op.create_table(
        "confirmation_reports",
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("finished_at", sa.DateTime, nullable=False),
        sa.Column("report", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_confirmation_reports"),
        _number("confirmation_reports"),
    )


def _number(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["number"], ["confirmations.number"], name=f"fk_{table}_number")


def _create_runs() -> None:
    op.create_table(
        "confirmation_runs",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("split", sa.String(64), nullable=False),
        sa.Column("steps", sa.Integer, nullable=False),
        sa.Column("horizon", sa.Integer, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("line", sa.Integer, nullable=True),
        sa.Column("bpb", sa.Double, nullable=True),
        sa.Column("curve", sa.LargeBinary, nullable=False),
        sa.Column("gradient_norms", sa.LargeBinary, nullable=False),
        sa.Column("resident_bytes", sa.BigInteger, nullable=True),
        sa.Column("fingerprint", sa.Text, nullable=True),
        sa.Column("jail_cpu_s", sa.Double, nullable=False),
        sa.Column("train_cpu_s", sa.Double, nullable=False),
        sa.Column("wall_s", sa.Double, nullable=False),
        sa.Column("peak_memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("sandbox_level", sa.Integer, nullable=False),
        sa.Column("unsafe", sa.Boolean, nullable=False),
        sa.Column("finished_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_confirmation_runs"),
        sa.UniqueConstraint(*_UNIQUE, name="uq_confirmation_runs_" + "_".join(_UNIQUE)),
        sa.CheckConstraint(
            "(bpb IS NOT NULL) = (status = 'ok')", name="ck_confirmation_runs_only_ok_has_bpb"
        ),
        _number("confirmation_runs"),
    )
