"""Run the steps on the connection `db.schema` hands over; Alembic executes this file itself.

The caller owns the transaction: a process killed half way leaves the database as it was.
"""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
