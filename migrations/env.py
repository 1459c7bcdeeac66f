"""Runs migrations; `service.infra.migrate` or alembic.ini says on which database."""

from alembic import context
from sqlalchemy import create_engine

from service.infra.migrate import sync_url
from service.infra.tables import Base


def is_ours(name: str | None, kind: str, _: object) -> bool:
    """Whether the tables of the code say what this should be; Procrastinate says for its own."""
    return kind != "table" or not (name or "").startswith("procrastinate_")


url = context.config.attributes.get("url") or context.config.get_main_option("sqlalchemy.url")
assert url, "no database url"
engine = create_engine(sync_url(url))
try:
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            render_as_batch=True,
            compare_type=True,
            include_name=is_ours,
        )
        with context.begin_transaction():
            context.run_migrations()
finally:
    engine.dispose()
