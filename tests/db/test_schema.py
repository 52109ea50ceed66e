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
down_revision = "m0004"

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


def at_version(folder: Path, last: str) -> Path:
    """A copy of today's steps up to one of them."""
    copy = folder / f"up to {last}"
    shutil.copytree(MIGRATIONS, copy)
    for step in (copy / "versions").glob("m*.py"):
        if step.name[: len(last)] > last:
            step.unlink()
    return copy


OLD_EVALUATIONS = """
    INSERT INTO evaluations (program_id, stage, split, steps, seed, status, bpb, reason, curve,
        jail_cpu_s, train_cpu_s, wall_s, peak_memory_bytes, output_tail, sandbox_level, unsafe,
        finished_at)
    SELECT 'p', stage, 'search', steps, 1, status, bpb, '', x'', 0, 0, 0, 0, '', 2, 0,
        '2026-01-01 00:00:00'
    FROM (
        SELECT 'smoke' AS stage, 8 AS steps, 'ok' AS status, 7.5 AS bpb
        UNION ALL SELECT 'screen', 100, 'nan', NULL
    )
"""


def test_runs_from_before_altered_gradients_keep_their_scores_and_learn_their_horizons(
    tmp_path: Path,
) -> None:
    engine = connect(tmp_path / DATABASE, writable=True)
    with engine.begin() as connection:
        migrate(connection, at_version(tmp_path, "m0001"))
        connection.exec_driver_sql(
            "INSERT INTO runs VALUES ('run', '2026-01-01 00:00:00', 1, '{}', '{\"steps\": 400}')"
        )
        connection.exec_driver_sql(
            "INSERT INTO programs VALUES (1, 'p', 0, '', NULL, 'n', '2026-01-01', NULL)"
        )
        connection.exec_driver_sql(OLD_EVALUATIONS)
    engine.dispose()

    with Store.open(tmp_path) as store:
        found = store.evaluations()

    assert [(e.stage, e.steps, e.horizon, e.gradients, e.bpb) for e in found] == [
        ("smoke", 8, 400, "true", 7.5),
        ("screen", 100, 100, "true", None),
    ]
    assert [e.evidence for e in found] == [None, None]


OLD_VERDICT = """
    INSERT INTO verdicts VALUES (1, 'p', 'race', 0, 'reject', 'not better: x', NULL, 0.002, -0.001,
        0.005, 4, '[1, 2, 3, 4]', '2026-01-01 00:00:00')
"""


def test_verdicts_from_before_sequential_tests_are_of_no_sample_and_without_an_e_value(
    tmp_path: Path,
) -> None:
    engine = connect(tmp_path / DATABASE, writable=True)
    with engine.begin() as connection:
        migrate(connection, at_version(tmp_path, "m0002"))
        connection.exec_driver_sql(
            "INSERT INTO runs VALUES ('run', '2026-01-01 00:00:00', 1, '{}', '{}')"
        )
        connection.exec_driver_sql(
            "INSERT INTO programs VALUES (1, 'p', 0, '', NULL, 'n', '2026-01-01', NULL)"
        )
        connection.exec_driver_sql(OLD_VERDICT)
    engine.dispose()

    with Store.open(tmp_path) as store:
        (found,) = store.verdicts()

    assert (found.effect_bpb, found.pairs, found.seeds) == (0.002, 4, (1, 2, 3, 4))
    assert (found.log_e, found.stopped, found.is_sample) == (None, None, False)


def test_an_upgraded_database_refuses_what_a_new_one_does(tmp_path: Path, engine: Engine) -> None:
    with engine.begin() as connection:
        migrate(connection, at_version(tmp_path, "m0001"))
        migrate(connection)

        found = connection.exec_driver_sql(
            "SELECT sql FROM sqlite_master WHERE name = 'evaluations'"
        ).scalar_one()
    assert found.count("ck_evaluations_only_ok_has_bpb") == 1
    assert "(program_id, split, steps, horizon, gradients, seed)" in found.replace("\n", " ")
    assert "FOREIGN KEY" in found


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

    with engine.begin() as connection, pytest.raises(StoreError, match=r"m0004.*m9001.*resume"):
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
