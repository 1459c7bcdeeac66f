"""Runs migrations; `service.infra.sql.migrate` or alembic.ini says on which database."""

import time
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationInfo
from sqlalchemy import Connection, create_engine, delete, insert, inspect, text

from service.infra.sql.migrate import LOCK_TIMEOUT_S, sync_url
from service.infra.sql.tables import Base, SchemaFloor

LOCK = 7_767_000_001
"""Of all processes that start at once only one migrates; the others wait and find it done."""
LOCK_LOOK_EVERY_S = 0.5


def ours(name: str | None, kind: str, _: Any) -> bool:
    """Not Procrastinate's tables: a migration makes them, and no code here describes them."""
    return kind != "table" or not (name or "").startswith("procrastinate_")


def keep_floor(
    ctx: Any,
    step: MigrationInfo,
    heads: Any,
    run_args: Any,  # as Alembic calls it
) -> None:
    """Write down which older code may run on the schema as it is now."""
    connection: Connection = ctx.connection
    if not inspect(connection).has_table(SchemaFloor.__tablename__):
        return
    at = step.revision_map.get_revision(next(iter(heads)))
    connection.execute(delete(SchemaFloor))
    connection.execute(insert(SchemaFloor).values(revision=at.module.oldest_code))


url = context.config.attributes.get("url") or context.config.get_main_option("sqlalchemy.url")
assert url, "no database url"
engine = create_engine(sync_url(url), hide_parameters=True)
try:
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            # The session's, not the transaction's: an index may end that (`index_while_served`).
            connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'"))
            while not connection.scalar(text(f"SELECT pg_try_advisory_lock({LOCK})")):
                # No transaction waits: the index that another builds would wait for it to end.
                connection.commit()
                time.sleep(LOCK_LOOK_EVERY_S)
            connection.commit()
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            render_as_batch=True,
            compare_type=True,
            include_name=ours,
            on_version_apply=keep_floor,
        )
        with context.begin_transaction():
            context.run_migrations()
finally:
    engine.dispose()
