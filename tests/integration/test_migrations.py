"""The migrations lead to exactly the tables of the code, and back."""

from pathlib import Path

from alembic import command
from sqlalchemy import create_engine, func, inspect, select, text

from service.infra import migrate
from service.infra.tables import Base, Chore, User


def test_the_migrations_make_the_tables_of_the_code(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'ppd.db'}"
    migrate.upgrade(url)
    command.check(migrate.alembic_config(url))
    current, head = migrate.revision(url)
    assert current == head
    migrate.upgrade(url)


def test_the_migrations_make_the_tables_of_the_code_on_postgresql(postgres_url: str) -> None:
    url = postgres_url.replace("postgresql:", "postgresql+psycopg:")
    migrate.upgrade(url)
    command.check(migrate.alembic_config(url))
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.scalar(select(func.max(Chore.begun_at))).year == 1970
    engine.dispose()
    command.downgrade(migrate.alembic_config(url), "base")


def test_the_migrations_can_be_undone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ppd.db'}"
    migrate.upgrade(url)
    engine = create_engine(url)
    assert set(Base.metadata.tables) <= set(inspect(engine).get_table_names())
    command.downgrade(migrate.alembic_config(url), "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    engine.dispose()


def test_what_is_held_survives_every_step_up_and_down(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ppd.db'}"
    config = migrate.alembic_config(url)
    command.upgrade(config, "0001")
    engine = create_engine(url)
    at = "2026-01-01 00:00:00"
    rows = (
        f"INSERT INTO users VALUES ('u', 't', 'ann', '{at}')",
        "INSERT INTO jobs (id, kind, priority, tenant, user_pk, status, seq, attempt, request, "
        f"created_at) VALUES ('j', 'generate', 10, 't', 'u', 'queued', 1, 0, '{{}}', '{at}')",
        "INSERT INTO images VALUES "
        f"('i', 't', 'u', 'j', 'generated', 0, 'j/1-0.png', 'x', 1, 1, 1, '{at}')",
    )
    with engine.begin() as connection:
        for row in rows:
            connection.execute(text(row))
    steps = ["head", "0001", "head"]
    for target in steps:
        (command.downgrade if target == "0001" else command.upgrade)(config, target)
        with engine.connect() as connection:
            for table in ("users", "jobs", "images"):
                count = select(func.count()).select_from(Base.metadata.tables[table])
                assert connection.scalar(count) == 1, (target, table)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT turn FROM jobs")) == 0
        assert connection.scalar(select(User.seen_at)).year >= 2026, "nobody is inactive yet"
        assert connection.scalar(select(func.max(Chore.begun_at))).year == 1970
    engine.dispose()
