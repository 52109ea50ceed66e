"""Keep with a verdict what a sequential test came to, and whether its program was a sample.

Until now no stage let a program go on whatever it scored, and no e-value was recorded.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "m0003"
down_revision = "m0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; no old verdict is of a sample."""
    op.add_column("verdicts", sa.Column("log_e", sa.Double, nullable=True))
    op.add_column("verdicts", sa.Column("stopped", sa.String(64), nullable=True))
    op.add_column("verdicts", sa.Column("is_sample", sa.Boolean, nullable=True))
    op.get_bind().execute(sa.text("UPDATE verdicts SET is_sample = 0"))
    with op.batch_alter_table("verdicts") as table:
        table.alter_column("is_sample", existing_type=sa.Boolean, nullable=False)
