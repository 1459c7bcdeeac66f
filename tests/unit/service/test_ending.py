"""Tasks that run for ever are ended, also those that miss being cancelled."""

import asyncio
import contextlib

import pytest

from service.infra.ending import end

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_task_that_swallows_a_cancellation_is_ended_all_the_same() -> None:
    swallowed = []

    async def forever() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed.append(True)
                if len(swallowed) > 2:
                    raise

    task = asyncio.create_task(forever())
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await end(task)
    assert task.cancelled()
    assert len(swallowed) == 3


async def test_what_has_failed_or_ended_is_no_error() -> None:
    async def fail() -> None:
        raise OSError

    async def ends() -> None:
        pass

    tasks = [asyncio.create_task(fail()), asyncio.create_task(ends())]
    with contextlib.suppress(OSError):
        await tasks[0]
    await end(*tasks)
    await end()
