"""Every test starts its own service; see `tests.running_service`."""

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fake_runtime import FakeRuntime
from tests.running_service import Service, make_pool, on_postgres, running


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_databases: run on SQLite and on PostgreSQL")
    config.addinivalue_line("markers", "sqlite_only: looks at SQLite's own ways")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    mark = metafunc.definition.get_closest_marker
    if mark("both_databases") and not mark("sqlite_only"):
        metafunc.parametrize("database_of", ["sqlite", "postgresql"], indirect=True)


DatabaseOf = Callable[[Path], dict[str, Any]]


@pytest.fixture
def database_of(request: pytest.FixtureRequest) -> DatabaseOf:
    """Settings that name the database of a data folder: the same again for the same folder."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return lambda _: {}
    new_database: Callable[[], str] = request.getfixturevalue("migrated_postgres")
    made: dict[Path, dict[str, Any]] = {}

    def settings(data_dir: Path) -> dict[str, Any]:
        if data_dir not in made:
            made[data_dir] = on_postgres(new_database())
        return made[data_dir]

    return settings


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a folder: every commit waits for the disk otherwise."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="ppd-test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def pool_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pool(tmp_path_factory.mktemp("pool"))


Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path, pool_dir: Path, database_of: DatabaseOf) -> AsyncIterator[Start]:
    """Starts services; give the same `data_dir` again for a restart."""

    async with AsyncExitStack() as stack:

        async def starter(
            runtime: Any = None,
            data_dir: Path | None = None,
            *,
            ready: bool = True,
            **settings: Any,
        ) -> Service:
            folder = data_dir or tmp_path / "data"
            service = await stack.enter_async_context(
                running(
                    runtime or FakeRuntime(),
                    folder,
                    pool_dir,
                    ready=ready,
                    **{**database_of(folder), **settings},
                )
            )
            return service

        yield starter


@pytest.fixture
async def service(start: Start) -> Service:
    return await start()
