"""How many event streams this process holds open, and for whom."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from service.core.errors import ServiceError
from service.core.fairness import share
from service.infra.ending import abandon

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


async def until(events: AsyncGenerator[T], end_s: float) -> AsyncGenerator[T | None]:
    """These events until a moment of the loop's clock, and None whenever none came for long.

    Proxies close what is silent. Raises TimeoutError when the moment comes first. Takes `events`
    over: they are read and closed in a task of their own, since whoever is sent them may be
    canceled by the server at any await, and again while it closes them.
    """
    loop = asyncio.get_running_loop()
    read: asyncio.Queue[T | Ended] = asyncio.Queue(maxsize=1)
    reading = asyncio.create_task(_read(events, read))
    try:
        while True:
            left_s = end_s - loop.time()
            if left_s <= 0:
                raise TimeoutError
            try:
                async with asyncio.timeout(min(left_s, _PING_EVERY_S)):
                    event = await read.get()
            except TimeoutError:
                yield None
                continue
            if isinstance(event, Ended):
                if event.error is not None:
                    raise event.error
                return
            yield event
    finally:
        abandon(reading)


@dataclass(frozen=True)
class Ended:
    """There are no further events; `error` is why, if they broke off."""

    error: Exception | None = None


async def _read(events: AsyncGenerator[T], into: "asyncio.Queue[T | Ended]") -> None:
    try:
        async with aclosing(events):
            async for event in events:
                await into.put(event)
    except Exception as error:
        await into.put(Ended(error))
    else:
        await into.put(Ended())
