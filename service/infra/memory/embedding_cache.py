"""Embeddings in this process, the most recently used ones."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from ppd_model.types import EncodedUser
from service.core.ports import EmbeddingKey

_FORGOTTEN = 65_536


class Readings:
    """One reading of a key at a time, in this process."""

    def __init__(self) -> None:
        self._locks: dict[EmbeddingKey, asyncio.Lock] = {}

    @asynccontextmanager
    async def alone(self, key: EmbeddingKey) -> AsyncIterator[None]:
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():
                self._locks.pop(key, None)


class InProcessEmbeddingCache:
    """EmbeddingCache of at most `size` entries, for one event loop."""

    def __init__(self, size: int = 1024) -> None:
        self._size = size
        self._forgotten: OrderedDict[str, None] = OrderedDict()
        self._entries: OrderedDict[EmbeddingKey, EncodedUser] = OrderedDict()
        self._readings = Readings()

    async def get(self, key: EmbeddingKey) -> EncodedUser | None:
        taste = self._entries.get(key)
        if taste is not None:
            self._entries.move_to_end(key)
        return taste

    async def put(self, key: EmbeddingKey, taste: EncodedUser) -> None:
        """Keep it, unless its user was forgotten."""
        if key.user_pk in self._forgotten:
            return
        self._entries[key] = taste
        self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    async def once(
        self, key: EmbeddingKey, read: Callable[[], Awaitable[EncodedUser]]
    ) -> EncodedUser:
        """What is here, else what `read` gives; one reading of a key at a time."""
        async with self._readings.alone(key):
            taste = await self.get(key)
            if taste is None:
                taste = await read()
                await self.put(key, taste)
            return taste

    async def forget_user(self, tenant: str, user_pk: str) -> None:
        """Drop everything of one user, also what a job that still runs will put."""
        self._forgotten[user_pk] = None
        if len(self._forgotten) > _FORGOTTEN:
            self._forgotten.popitem(last=False)
        for key in [key for key in self._entries if key.user_pk == user_pk]:
            del self._entries[key]
