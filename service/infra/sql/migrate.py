"""Brings a database to the newest schema with the real migrations."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from alembic import command, op
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, select
from sqlalchemy.exc import OperationalError

from service.infra.sql.tables import SchemaFloor

log = logging.getLogger("ppd.migrate")

CONNECT_TIMEOUT_S = 10
LOCK_TIMEOUT_S = 3
"""So long a migration waits for others' locks: whoever comes after it waits as well."""
INDEX_TIMEOUT_S = 60
LOCK_PAUSE_S = 2.0
LOCK_TRIES = 24
_OTHERS_IN_THE_WAY = {"55P03", "40P01"}  # lock_not_available, deadlock_detected
MIGRATIONS_DIR = Path(__file__).resolve().parents[3] / "migrations"


def alembic_config(url: str) -> Config:
    """Alembic's configuration for one database."""
    if not (MIGRATIONS_DIR / "env.py").is_file():
        raise ValueError(f"no migrations at {MIGRATIONS_DIR}; install the project with pip -e")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS_DIR))
    config.attributes["url"] = url
    return config


def upgrade(url: str) -> None:
    """Apply every migration that is missing; none when a newer version has made the schema.

    Raises ValueError when that version left nothing for this code to run on, or when another
    transaction kept what is to be changed locked for minutes; then nothing was changed.
    """
    if _is_newer(url):
        return
    for tries_left in reversed(range(LOCK_TRIES)):
        try:
            return command.upgrade(alembic_config(url), "head")
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in _OTHERS_IN_THE_WAY:
                raise
            if not tries_left:
                raise ValueError(
                    "another transaction keeps locked what is to be changed (pg_stat_activity "
                    "shows it); nothing was changed, and `ppd migrate` can be run again"
                ) from error
        log.warning("another transaction keeps locked what is to be changed; it is tried again")
        time.sleep(LOCK_PAUSE_S)


def index_while_served(name: str, table: str, columns: Sequence[str]) -> None:
    """Build an index of a table that is there, while others write to it; for migrations.

    On PostgreSQL it is no part of a transaction: what comes before it in its migration would be
    kept where it fails, so it comes first. What a broken one left is removed.
    """
    context = op.get_context()
    if context.dialect.name != "postgresql":
        return op.create_index(name, table, list(columns))
    with context.autocommit_block():
        # It waits for transactions that are older, and nobody waits for it meanwhile.
        op.execute(f"SET lock_timeout = '{INDEX_TIMEOUT_S}s'")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.create_index(name, table, list(columns), postgresql_concurrently=True)
        op.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")


def revision(url: str) -> tuple[str | None, str | None]:
    """The revision that the database is at, and the newest one of this code.

    Raises ConnectionError when the database cannot be reached.
    """
    current, _ = _stands(url)
    return current, ScriptDirectory.from_config(alembic_config(url)).get_current_head()


def refuse_old(url: str) -> None:
    """Raises ValueError for a schema that this code has migrations for, or cannot run on.

    One that a newer `ppd migrate` has made is fine if it says so: it is the first step of an
    upgrade, and what a rollback finds.
    """
    current, head = revision(url)
    if not _is_newer(url) and current != head:
        raise ValueError(f"the schema is at {current}, the newest is {head}; run `ppd migrate`")


def _is_newer(url: str) -> bool:
    """Whether a newer version has made the schema, and this code may run on it.

    Raises ValueError when it may not.
    """
    scripts = ScriptDirectory.from_config(alembic_config(url))
    known = {script.revision for script in scripts.walk_revisions()}
    current, floor = _stands(url)
    if current is None or current in known:
        return False
    if floor not in known:
        raise ValueError(
            f"the schema is at {current}, which a newer version made, and asks for code of "
            f"{floor or current} or later; this is {scripts.get_current_head()}. Run a newer "
            "version, or restore the backup from before it"
        )
    log.warning("the schema is at %s, of a newer version, which lets this one run on it", current)
    return True


def _stands(url: str) -> tuple[str | None, str | None]:
    """The revision that the database is at, and the oldest whose code may run on it, if told."""
    engine = create_engine(sync_url(url), connect_args=_soon(url))
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision(), _floor(connection)
    except OperationalError as error:
        raise ConnectionError(f"the database cannot be reached: {error.orig}") from error
    finally:
        engine.dispose()


def _floor(connection: Connection) -> str | None:
    if not inspect(connection).has_table(SchemaFloor.__tablename__):
        return None
    return connection.scalar(select(SchemaFloor.revision))


def _soon(url: str) -> dict[str, int]:
    """A server that does not answer is given up after so many seconds; SQLite has none."""
    return {} if url.startswith("sqlite") else {"connect_timeout": CONNECT_TIMEOUT_S}


def sync_url(url: str) -> str:
    """The same database through a driver that blocks."""
    return url.replace("sqlite+aiosqlite:", "sqlite:")
