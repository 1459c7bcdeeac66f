"""The migrations lead to exactly the tables of the code, and back."""

from pathlib import Path

from alembic import command
from sqlalchemy import create_engine, inspect

from service.infra import migrate
from service.infra.tables import Base


def test_the_migrations_make_the_tables_of_the_code(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'ppd.db'}"
    migrate.upgrade(url)
    command.check(migrate.alembic_config(url))
    current, head = migrate.revision(url)
    assert current == head
    migrate.upgrade(url)


def test_the_migrations_can_be_undone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ppd.db'}"
    migrate.upgrade(url)
    engine = create_engine(url)
    assert set(Base.metadata.tables) <= set(inspect(engine).get_table_names())
    command.downgrade(migrate.alembic_config(url), "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    engine.dispose()
