from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, inspect

from db.errors import StoreError
from db.schema import MIGRATIONS, VERSION_TABLE, connect, migrate, require_current
from db.store import DATABASE, Store
from db.tables import Table
from tests.db.builders import run

NEXT_STEP = """
import sqlalchemy as sa
from alembic import op

revision = "m9001"
down_revision = "m0001"

def upgrade():
    op.create_table("extra", sa.Column("seq", sa.Integer, primary_key=True))
    {then}
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = connect(tmp_path / DATABASE, writable=True)
    yield engine
    engine.dispose()


def migrations_of_tomorrow(folder: Path, then: str = "pass") -> Path:
    """A copy of today's steps with one more."""
    copy = folder / "100% of them"
    shutil.copytree(MIGRATIONS, copy)
    (copy / "versions" / "m9001.py").write_text(NEXT_STEP.format(then=then))
    return copy


def tables(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return set(inspect(connection).get_table_names())


def set_version(folder: Path, version: str) -> None:
    with closing(sqlite3.connect(folder / DATABASE)) as database, database:
        database.execute(f"UPDATE {VERSION_TABLE} SET version_num = ?", [version])  # noqa: S608  # our own constant


def test_the_steps_lead_to_the_tables_of_today(engine: Engine) -> None:
    with engine.begin() as connection:
        migrate(connection)

        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []


def test_an_older_database_is_upgraded_and_keeps_its_rows(tmp_path: Path, engine: Engine) -> None:
    with engine.begin() as connection:
        migrate(connection)
        connection.exec_driver_sql("INSERT INTO events VALUES (1, '2026-01-01', 'started', '{}')")

    with engine.begin() as connection:
        migrate(connection, migrations_of_tomorrow(tmp_path))

    assert "extra" in tables(engine)
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM events").scalar_one() == 1


def test_an_upgrade_that_fails_half_way_changes_nothing(tmp_path: Path, engine: Engine) -> None:
    with engine.begin() as connection:
        migrate(connection)
    before = tables(engine)

    with pytest.raises(ZeroDivisionError), engine.begin() as connection:
        migrate(connection, migrations_of_tomorrow(tmp_path, then="1 / 0"))

    assert tables(engine) == before
    with engine.begin() as connection:
        require_current(connection)


def test_an_older_database_is_not_read_without_being_upgraded(
    tmp_path: Path, engine: Engine
) -> None:
    with engine.begin() as connection:
        migrate(connection)

    with engine.begin() as connection, pytest.raises(StoreError, match=r"m0001.*m9001.*resume"):
        require_current(connection, migrations_of_tomorrow(tmp_path))


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_database_of_an_unknown_version_is_refused(tmp_path: Path, exclusive: bool) -> None:
    Store.create(tmp_path, run()).close()
    set_version(tmp_path, "m9999")

    with pytest.raises(StoreError, match=r"version m9999 .* up to m\d{4}: open it with"):
        Store.open(tmp_path, exclusive=exclusive)


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / DATABASE)) as database:
        database.execute("CREATE TABLE songs (title TEXT)")

    with pytest.raises(StoreError, match="not a lineage database"):
        Store.open(tmp_path)


def test_migrating_says_nothing_in_the_log_of_a_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        Store.create(tmp_path, run()).close()

    assert caplog.records == []


def test_references_are_enforced_and_the_log_is_written_ahead(engine: Engine) -> None:
    with engine.begin() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
