"""How many event streams this process holds open, and for whom."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from service.core.errors import ServiceError
from service.core.fairness import share
from service.infra.ending import end

T = TypeVar("T")

_RETRY_AFTER = {"Retry-After": "5"}
_PING_EVERY_S = 15.0


class OpenStreams:
    """Places for at most `limit` streams, of which one caller holds its share, at most `cap`."""

    def __init__(self, limit: int, cap: int) -> None:
        self._limit = limit
        self._cap = cap
        self._open: Counter[str] = Counter()

    def count(self) -> int:
        return self._open.total()

    @contextmanager
    def hold(self, caller: str) -> Iterator[None]:
        """Hold a place; raise 503 when all are taken, 429 when the caller has its share of them."""
        taken = self._open.total()
        if taken >= self._limit:
            raise ServiceError(503, "streams_full", headers=_RETRY_AFTER)
        if self._open[caller] >= share(self._limit, taken, self._cap):
            raise ServiceError(429, "too_many_streams", headers=_RETRY_AFTER)
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]


async def until(events: AsyncIterator[T], end_s: float) -> AsyncGenerator[T | None]:
    """These events until a moment of the loop's clock, and None whenever none came for long.

    Proxies close what is silent. Raises TimeoutError when the moment comes first.
    """
    loop = asyncio.get_running_loop()
    upcoming = _next(events)
    try:
        while True:
            left_s = end_s - loop.time()
            if left_s <= 0:
                raise TimeoutError
            done, _ = await asyncio.wait((upcoming,), timeout=min(left_s, _PING_EVERY_S))
            if not done:
                yield None
                continue
            try:
                event = upcoming.result()
            except StopAsyncIteration:
                return
            upcoming = _next(events)
            yield event
    finally:
        await end(upcoming)


def _next(events: AsyncIterator[T]) -> "asyncio.Task[T]":
    async def wait() -> T:
        return await anext(events)

    return asyncio.create_task(wait())
