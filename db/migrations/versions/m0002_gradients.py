"""Tell training runs apart by horizon and gradients, and keep what they showed besides a score.

Until now every run had true gradients, and all but the smoke tests, which begin a run of the full
horizon, were scheduled for their own steps.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "m0002"
down_revision = "m0001"
branch_labels = None
depends_on = None

_UNIQUE = ("program_id", "split", "steps", "horizon", "gradients", "seed")


def upgrade() -> None:
    """Add the columns, fill them for the runs there are, then require them."""
    op.add_column("evaluations", sa.Column("horizon", sa.Integer, nullable=True))
    op.add_column("evaluations", sa.Column("gradients", sa.String(64), nullable=True))
    op.add_column("evaluations", sa.Column("evidence", sa.JSON, nullable=True))
    _fill()
    with op.batch_alter_table("evaluations") as table:
        table.alter_column("horizon", existing_type=sa.Integer, nullable=False)
        table.alter_column("gradients", existing_type=sa.String(64), nullable=False)
        table.drop_constraint("uq_evaluations_program_id_split_steps_seed", type_="unique")
        table.create_unique_constraint("uq_evaluations_" + "_".join(_UNIQUE), list(_UNIQUE))


def _fill() -> None:
    connection = op.get_bind()
    connection.execute(sa.text("UPDATE evaluations SET gradients = 'true', horizon = steps"))
    facts = connection.execute(sa.text("SELECT facts FROM runs")).scalar()
    steps = json.loads(facts).get("steps") if facts else None
    if steps:
        connection.execute(
            sa.text("UPDATE evaluations SET horizon = :steps WHERE stage = 'smoke'"),
            {"steps": steps},
        )
