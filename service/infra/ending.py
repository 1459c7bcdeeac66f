"""Tasks that run for ever, or for too long, and their end."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

_AGAIN_S = 0.2
_T = TypeVar("_T")

_ending: set[asyncio.Task[Any]] = set()
"""Tasks that were told to end and have not yet."""


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel these tasks and return when all have ended; how they ended is not asked.

    Until Python 3.12 `asyncio.wait_for`, which libraries use, swallows a cancellation that comes
    together with what it waits for: so a task that goes on all the same is cancelled again.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)


def abandon(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel these tasks and wait for none: the server cancels whoever would, again and again."""
    for task in tasks:
        if not task.done():
            _ending.add(task)
            task.add_done_callback(_ended)
            task.cancel()


@asynccontextmanager
async def beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs these beside the block, and ends them with it."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        await end(*tasks)


async def in_time(work: Coroutine[Any, Any, _T], seconds: float) -> _T:
    """What `work` gives; raises TimeoutError after so many seconds, and whatever it raises.

    Unlike `asyncio.timeout` it does not wait for the end of what it cancels: a driver may first
    want to tell a server that says nothing.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        abandon(task)
    if not done:
        raise TimeoutError(f"no answer in {seconds:g} s")
    return task.result()


def _ended(task: asyncio.Task[Any]) -> None:
    _ending.discard(task)
    if not task.cancelled():
        task.exception()  # seen, so that nobody is told of it
