"""A deadline holds, whatever the work does when it is told to end."""

import asyncio
import time

import pytest

from service.infra.ending import in_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_work_that_ends_slowly_is_not_waited_for_and_fails_unheard() -> None:
    told = []

    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            told.append(True)
            await asyncio.sleep(30)
            raise OSError from None

    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer in 0.05 s"):
        await in_time(stubborn(), 0.05)
    assert time.monotonic() - began < 20
    await asyncio.sleep(0)
    assert told


async def test_what_comes_in_time_or_fails_is_passed_on() -> None:
    async def give() -> int:
        return 3

    async def fail() -> int:
        raise OSError("full")

    assert await in_time(give(), 5) == 3
    with pytest.raises(OSError, match="full"):
        await in_time(fail(), 5)


async def test_who_is_canceled_ends_the_work() -> None:
    ended = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    task = asyncio.create_task(in_time(forever(), 60))
    await asyncio.sleep(0.01)
    task.cancel()
    async with asyncio.timeout(30):
        await ended.wait()
    with pytest.raises(asyncio.CancelledError):
        await task
