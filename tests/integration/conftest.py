"""Every test starts its own service; see `tests.running_service`."""

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fake_runtime import FakeRuntime
from tests.running_service import Service, make_pool, running


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
async def start(tmp_path: Path, pool_dir: Path) -> AsyncIterator[Start]:
    """Starts services; give the same `data_dir` again for a restart."""

    async with AsyncExitStack() as stack:

        async def starter(
            runtime: Any = None,
            data_dir: Path | None = None,
            *,
            ready: bool = True,
            **settings: Any,
        ) -> Service:
            service = await stack.enter_async_context(
                running(
                    runtime or FakeRuntime(),
                    data_dir or tmp_path / "data",
                    pool_dir,
                    ready=ready,
                    **settings,
                )
            )
            return service

        yield starter


@pytest.fixture
async def service(start: Start) -> Service:
    return await start()
