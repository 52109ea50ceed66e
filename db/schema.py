"""Open a lineage database and bring its tables up to date.

The one place that knows which database it is: SQLite, with a write-ahead log. Every change is one
transaction. `synchronous=NORMAL` writes the log at each commit but waits for the disk only at
checkpoints: a process killed at any instant loses nothing it has committed; a machine that loses
power may lose the last moments, and is never left with a broken file.
"""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect

from db.errors import StoreError

__all__ = ["MIGRATIONS", "VERSION_TABLE", "connect", "is_blank", "migrate", "require_current"]

MIGRATIONS = Path(__file__).with_name("migrations")
VERSION_TABLE = "alembic_version"

# A reader of a running search, or a checkpoint, holds the database for milliseconds.
_BUSY_TIMEOUT_MS = 10_000

# Alembic logs two lines about itself at INFO whenever a database is opened.
logging.getLogger("alembic").setLevel(logging.WARNING)


def connect(database: Path, *, writable: bool) -> Engine:
    """Make an engine for an SQLite file, which is created at the first use if it is not there.

    A transaction of a writable engine takes the write lock when it begins, so that it cannot
    fail half way for want of it. One that is not writable refuses every change.
    """
    engine = create_engine(URL.create("sqlite", database=str(database)))

    # The driver's own transactions begin at the first INSERT, which leaves table definitions
    # outside; so it is told to leave transactions alone.
    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        if writable:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
        else:
            connection.execute("PRAGMA query_only = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writable else "BEGIN")

    return engine


def is_blank(connection: Connection) -> bool:
    """Whether the database has no table at all, as a file of no bytes."""
    return not inspect(connection).get_table_names()


def migrate(connection: Connection, migrations: Path = MIGRATIONS) -> None:
    """Apply every step the database does not have yet, inside the caller's transaction.

    Raises:
        StoreError: the database is at a step that is not among `migrations`.
    """
    config = _configure(migrations)
    if _version(connection) == _head(connection, config):
        return
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def require_current(connection: Connection, migrations: Path = MIGRATIONS) -> None:
    """Refuse a database whose tables are not those of today.

    Raises:
        StoreError: its version is unknown, or older than this program's.
    """
    head = _head(connection, _configure(migrations))
    version = _version(connection)
    if version != head:
        raise StoreError(
            f"{_file(connection)} is of version {version} and this program reads {head}: resume "
            "the run once, which upgrades it"
        )


def _configure(migrations: Path) -> Config:
    config = Config()
    config.set_main_option("path_separator", "os")
    # "%" starts an interpolation in Alembic's configuration.
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    return config


def _version(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _head(connection: Connection, config: Config) -> str:
    """The newest step, once it is clear that the database is on the way to it."""
    scripts = ScriptDirectory.from_config(config)
    known = [script.revision for script in scripts.walk_revisions()]  # newest first
    version = _version(connection)
    if version is None and inspect(connection).get_table_names():
        raise StoreError(
            f"{_file(connection)} has tables but no version: it is not a lineage database; "
            "give the folder of a run"
        )
    if version is not None and version not in known:
        raise StoreError(
            f"{_file(connection)} is of version {version} and this program knows versions up to "
            f"{known[0]}: open it with the NanoEvolve that made it, or a newer one"
        )
    return known[0]


def _file(connection: Connection) -> str:
    return str(connection.engine.url.database)
