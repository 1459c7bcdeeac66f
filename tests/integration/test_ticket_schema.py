"""Procrastinate's schema comes and goes with its migration."""

import psycopg
from alembic import command

from service.infra.sql import migrate


def held(url: str) -> int:
    """How many tables, functions and types of Procrastinate's there are."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            """
            SELECT (SELECT count(*) FROM pg_class WHERE starts_with(relname, 'procrastinate_'))
                + (SELECT count(*) FROM pg_proc WHERE starts_with(proname, 'procrastinate_'))
                + (SELECT count(*) FROM pg_type WHERE starts_with(typname, 'procrastinate_'))
            """
        ).fetchone()
    assert found is not None
    return int(found[0])


def test_it_comes_goes_and_comes_again_and_is_none_of_alembics_business(postgres_url: str) -> None:
    url = postgres_url.replace("postgresql:", "postgresql+psycopg:")
    config = migrate.alembic_config(url)
    migrate.upgrade(url)
    assert held(postgres_url) > 20
    command.check(config)
    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name) VALUES ('generate', 'x')"
        )
    command.downgrade(config, "base")
    assert held(postgres_url) == 0
    migrate.upgrade(url)
    command.check(config)
    assert held(postgres_url) > 20
