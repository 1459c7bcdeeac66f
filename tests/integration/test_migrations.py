"""The migrations lead to exactly the tables of the code, and back, on both databases."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, MetaData, create_engine, func, inspect, select, text

from service.infra.sql import migrate
from service.infra.sql.tables import Base, Chore

AT = "2026-01-01 00:00:00+00:00"
PARENTS_FIRST = (
    "api_keys", "users", "profiles", "jobs", "idempotency_keys", "images", "job_subjects",
    "choices", "workers", "adapters", "adapter_activations", "images_to_delete", "erased_users",
    "chores", "schema_floor", "audit_entries", "ended_sessions", "reports", "readings", "turns",
    "blind_choices",
    "exports", "exported_people", "exported_answers",
    "taste_shares",
)  # fmt: skip
PLAIN = {"VARCHAR": "x", "TEXT": "x", "INTEGER": 1, "BIGINT": 1, "FLOAT": 1.0, "BOOLEAN": True}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ppd.db'}"
    made: str = request.getfixturevalue("postgres_url")
    return made


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = create_engine(url)
    yield engine
    engine.dispose()


def test_the_migrations_make_the_tables_of_the_code(url: str) -> None:
    migrate.upgrade(url)
    command.check(migrate.alembic_config(url))
    current, head = migrate.revision(url)
    assert current == head
    migrate.upgrade(url)


def test_the_migrations_can_be_undone(url: str, engine: Engine) -> None:
    migrate.upgrade(url)
    assert set(Base.metadata.tables) <= set(inspect(engine).get_table_names())
    command.downgrade(migrate.alembic_config(url), "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]


def test_what_is_held_survives_every_step_up_and_down(url: str, engine: Engine) -> None:
    config = migrate.alembic_config(url)
    revisions = [r.revision for r in ScriptDirectory.from_config(config).walk_revisions()][::-1]
    filled: dict[str, set[str]] = {}
    for revision in revisions:
        command.upgrade(config, revision)
        filled[revision] = fill(engine)
        expect_one_row_each(engine, revision, filled[revision])
    for revision in revisions[-2::-1]:
        command.downgrade(config, revision)
        expect_one_row_each(engine, revision, filled[revision])
    command.upgrade(config, "head")
    expect_one_row_each(engine, "head", filled[revisions[0]])
    with engine.connect() as connection:
        assert connection.scalar(select(func.max(Chore.begun_at))).year == 1970


def test_every_migration_says_which_code_may_run_on_its_schema(url: str, engine: Engine) -> None:
    scripts = list(ScriptDirectory.from_config(migrate.alembic_config(url)).walk_revisions())
    known = {script.revision for script in scripts}
    for script in scripts:
        if script.revision >= "0010":
            assert script.module.oldest_code in known, script.revision
    migrate.upgrade(url)
    with engine.connect() as connection:
        floor = connection.scalar(text("SELECT revision FROM schema_floor"))
    assert floor == scripts[0].module.oldest_code


def test_what_code_of_every_version_has_prepared_still_runs_on_the_newest_schema(
    postgres_url: str,
) -> None:
    config = migrate.alembic_config(postgres_url)
    scripts = list(ScriptDirectory.from_config(config).walk_revisions())
    floor = scripts[0].module.oldest_code
    prepared: list[tuple[str, Any, list[str]]] = []
    for script in reversed(scripts):
        command.upgrade(config, script.revision)
        if script.revision < floor:
            continue
        engine = create_engine(postgres_url)
        tables = {
            name: inspect(engine).get_columns(name) for name in inspect(engine).get_table_names()
        }
        engine.dispose()
        connection = psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True)
        reads = [
            f"SELECT {', '.join(column['name'] for column in columns)} FROM {name}"
            for name, columns in tables.items()
        ]
        for read in reads:
            connection.execute(read, prepare=True)
        prepared.append((script.revision, connection, reads))
    for revision, connection, reads in prepared:
        with connection:
            for read in reads:
                assert connection.execute(read, prepare=True).fetchall() is not None, revision


def made_by_a_newer_version(engine: Engine, floor: str | None) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(text("DELETE FROM schema_floor"))
        if floor is not None:
            connection.execute(text(f"INSERT INTO schema_floor VALUES ('{floor}')"))


def test_a_newer_schema_that_only_widened_is_nothing_to_do(url: str, engine: Engine) -> None:
    migrate.upgrade(url)
    made_by_a_newer_version(engine, "0010")
    migrate.upgrade(url)
    migrate.refuse_old(url)
    assert migrate.revision(url)[0] == "9999"


@pytest.mark.parametrize("floor", ["9998", None])
def test_a_newer_schema_that_this_code_cannot_run_on_is_refused_in_a_line(
    url: str, engine: Engine, floor: str | None
) -> None:
    migrate.upgrade(url)
    made_by_a_newer_version(engine, floor)
    for refusing in (migrate.upgrade, migrate.refuse_old):
        with pytest.raises(ValueError, match=f"at 9999.*code of {floor or 9999} or later"):
            refusing(url)


def test_a_migration_does_not_wait_for_others_locks_for_long_and_goes_on_when_they_end(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TRIES", 2)
    config = migrate.alembic_config(postgres_url)
    command.upgrade(config, "0009")
    other = create_engine(postgres_url)
    with other.connect() as reader:
        reader.execute(text("SELECT count(*) FROM workers"))
        with pytest.raises(ValueError, match=r"keeps locked.*can be run again"):
            migrate.upgrade(postgres_url)
        assert migrate.revision(postgres_url)[0] == "0009"

        def let_go(_: Any) -> None:
            reader.rollback()

        monkeypatch.setattr(migrate.time, "sleep", let_go)
        migrate.upgrade(postgres_url)
    other.dispose()
    current, head = migrate.revision(postgres_url)
    assert current == head


def fill(engine: Engine) -> set[str]:
    """A row into every table that is empty, with a value in every column."""
    there = MetaData()
    there.reflect(engine)
    tables = [there.tables[name] for name in PARENTS_FIRST if name in there.tables]
    assert {table.name for table in tables} == ours(set(there.tables)), "PARENTS_FIRST lacks one"
    with engine.begin() as connection:
        for table in tables:
            if connection.scalar(select(func.count()).select_from(table)):
                continue
            names, values = [], {}
            for column in table.columns:
                kind = type(column.type).__name__
                names.append(column.name)
                value = PLAIN.get(kind, b"x" if kind in ("BLOB", "BYTEA") else None)
                if kind == "JSON":
                    value = "{}"
                elif kind in ("DATETIME", "TIMESTAMP"):
                    value = AT
                elif kind in ("DOUBLE_PRECISION", "REAL"):
                    value = 1.0
                assert value is not None, (table.name, column.name, kind)
                values[column.name] = value
            marks = ", ".join(f":{name}" for name in names)
            insert = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})"
            connection.execute(text(insert), values)
    return {table.name for table in tables}


def expect_one_row_each(engine: Engine, revision: str, filled: set[str]) -> None:
    """In all tables that were filled; those of later revisions are as new when they come again."""
    with engine.connect() as connection:
        assert filled <= set(inspect(engine).get_table_names())
        for name in filled:
            count = connection.scalar(text(f"SELECT count(*) FROM {name}"))
            if name == "chores":
                assert count == 2, "its own migration fills it"
            else:
                assert count == 1, (revision, name)


def ours(names: set[str]) -> set[str]:
    return {n for n in names if n != "alembic_version" and not n.startswith("procrastinate_")}


def test_processes_that_migrate_at_once_wait_for_each_other(postgres_url: str) -> None:
    code = "import sys; from service.infra.sql import migrate; migrate.upgrade(sys.argv[1])"
    started = [subprocess.Popen([sys.executable, "-c", code, postgres_url]) for _ in range(3)]
    try:
        assert [process.wait(120) for process in started] == [0, 0, 0]
    finally:
        for process in started:
            process.kill()
    current, head = migrate.revision(postgres_url)
    assert current == head


def test_an_index_that_one_builds_does_not_wait_for_those_who_wait_for_it(
    postgres_url: str,
) -> None:
    config = migrate.alembic_config(postgres_url)
    command.upgrade(config, "0018")
    engine = create_engine(postgres_url)
    with engine.connect() as first, ThreadPoolExecutor() as threads:
        first.execute(text("SELECT pg_advisory_lock(7767000001)"))
        first.commit()
        second = threads.submit(command.upgrade, config, "0019")
        time.sleep(2)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as building:
            building.execute(text("SET lock_timeout = '1s'"))
            building.execute(text("CREATE INDEX CONCURRENTLY like_0019 ON users (tenant, lane)"))
            building.execute(text("DROP INDEX like_0019"))
        assert not second.done()
        first.execute(text("SELECT pg_advisory_unlock_all()"))
        second.result(60)
    engine.dispose()


@pytest.mark.parametrize("revision", ["0012", "0019"])
def test_an_index_is_built_while_others_write(postgres_url: str, revision: str) -> None:
    """An open transaction that has written to the table would hold a plain one up, and be waited
    for by everybody after; an index that was broken off is built anew."""
    config = migrate.alembic_config(postgres_url)
    before = f"{int(revision) - 1:04d}"
    command.upgrade(config, before)
    table, columns = {"0012": ("images", "tenant"), "0019": ("users", "tenant")}[revision]
    name = {"0012": "ix_images_tenant_size_bytes", "0019": "ix_users_tenant_lane"}[revision]
    engine = create_engine(postgres_url)
    with engine.connect() as writer, ThreadPoolExecutor() as threads:
        writer.execute(text(f"CREATE INDEX {name} ON {table} ({columns})"))
        writer.commit()
        writer.execute(text(f"DELETE FROM {table}"))
        migrating = threads.submit(command.upgrade, config, revision)
        with engine.connect() as looking:
            for _ in range(300):
                waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                if looking.scalar(text(waits)):
                    break
                looking.rollback()
                time.sleep(0.1)
            else:
                pytest.fail("it does not wait for the writer")
        with engine.connect() as other:
            other.execute(text("SET lock_timeout = '2s'"))
            other.execute(text(f"DELETE FROM {table}"))
            other.commit()
        time.sleep(migrate.LOCK_TIMEOUT_S + 0.5)
        writer.commit()
        migrating.result(60)
    found = inspect(engine).get_indexes(table)
    assert next(len(one["column_names"]) for one in found if one["name"] == name) == 2
    engine.dispose()
