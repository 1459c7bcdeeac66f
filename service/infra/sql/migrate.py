"""Brings a database to the newest schema with the real migrations."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

CONNECT_TIMEOUT_S = 10
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
    """Apply every migration that is missing."""
    command.upgrade(alembic_config(url), "head")


def revision(url: str) -> tuple[str | None, str | None]:
    """The revision that the database is at, and the newest one.

    Raises ConnectionError when the database cannot be reached.
    """
    head = ScriptDirectory.from_config(alembic_config(url)).get_current_head()
    # A server that does not answer is given up after so many seconds; SQLite has none.
    soon = {} if url.startswith("sqlite") else {"connect_timeout": CONNECT_TIMEOUT_S}
    engine = create_engine(sync_url(url), connect_args=soon)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision(), head
    except OperationalError as error:
        raise ConnectionError(f"the database cannot be reached: {error.orig}") from error
    finally:
        engine.dispose()


def refuse_old(url: str) -> None:
    """Raises ValueError for a schema that this code has migrations for.

    One that a newer `ppd migrate` has made is fine: it is the first step of an upgrade.
    """
    current, head = revision(url)
    scripts = ScriptDirectory.from_config(alembic_config(url))
    known = {script.revision for script in scripts.walk_revisions()}
    if current is None or (current in known and current != head):
        raise ValueError(f"the schema is at {current}, the newest is {head}; run `ppd migrate`")


def sync_url(url: str) -> str:
    """The same database through a driver that blocks."""
    return url.replace("sqlite+aiosqlite:", "sqlite:")
