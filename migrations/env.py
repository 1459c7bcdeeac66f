"""Runs migrations; `service.infra.sql.migrate` or alembic.ini says on which database."""

from typing import Any

from alembic import context
from sqlalchemy import create_engine, text

from service.infra.sql.migrate import sync_url
from service.infra.sql.tables import Base

LOCK = 7_767_000_001
"""Of all processes that start at once only one migrates; the others wait and find it done."""


def ours(name: str | None, kind: str, _: Any) -> bool:
    """Not Procrastinate's tables: a migration makes them, and no code here describes them."""
    return kind != "table" or not (name or "").startswith("procrastinate_")


url = context.config.attributes.get("url") or context.config.get_main_option("sqlalchemy.url")
assert url, "no database url"
engine = create_engine(sync_url(url), hide_parameters=True)
try:
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            render_as_batch=True,
            compare_type=True,
            include_name=ours,
        )
        with context.begin_transaction():
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
            context.run_migrations()
finally:
    engine.dispose()
