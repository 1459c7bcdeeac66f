"""Ending tasks that run for ever."""

import asyncio

_AGAIN_S = 0.2


async def end(*tasks: "asyncio.Task[None]") -> None:
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
