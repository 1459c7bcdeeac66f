"""A real PostgreSQL and a real Redis, started once, at the first test that asks for one."""

from collections.abc import Callable, Iterator

import pytest

from service.infra.sql import migrate
from tests.servers import Postgres, Redis, postgres_server, redis_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A cluster. A test that stops it starts it again."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def redis_store() -> Iterator[Redis]:
    """A Redis. A test that stops it starts it again."""
    with redis_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """A new, empty database."""
    return postgres.database()


@pytest.fixture(scope="session")
def migrated_postgres(postgres: Postgres) -> Callable[[], str]:
    """Makes new databases that have the newest schema already."""
    template = postgres.database()
    migrate.upgrade(template)
    return lambda: postgres.database(template)


@pytest.fixture
def redis_url(redis_store: Redis) -> str:
    """An empty Redis."""
    redis_store.empty()
    return redis_store.url
