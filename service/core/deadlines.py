"""Deadlines that hold even where what is waited for does not end when it is told to."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")

_ending: set[asyncio.Task[Any]] = set()
"""Tasks that were told to end and have not yet."""


async def in_time(work: Coroutine[Any, Any, _T], seconds: float) -> _T:
    """What `work` gives; raises TimeoutError after so many seconds, and whatever it raises.

    Unlike `asyncio.timeout` it does not wait for the end of what it cancels: a driver may first
    want to tell a server that says nothing.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            _ending.add(task)
            task.add_done_callback(_ended)
            task.cancel()
    if not done:
        raise TimeoutError(f"no answer in {seconds:g} s")
    return task.result()


def _ended(task: asyncio.Task[Any]) -> None:
    _ending.discard(task)
    if not task.cancelled():
        task.exception()  # seen, so that nobody is told of it
