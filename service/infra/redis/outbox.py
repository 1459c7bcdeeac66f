"""Commands to Redis that nobody waits for: one bounded queue, one sender, in order."""

import asyncio
import contextlib
from collections import deque
from typing import Any, Self

from redis.asyncio import Redis

from service.infra.ending import end
from service.infra.redis.guard import Guard, RedisAway

_CAPACITY = 8192
_BATCH = 64
_AGAIN_S = 0.25
_FAREWELL_S = 1.0

Command = tuple[Any, ...]


class Outbox:
    """Takes commands on the event loop, sends them in the background while the block runs.

    While Redis is away they wait, the newest few thousand of them; those that were on their way
    when it went may come twice.
    """

    def __init__(self, client: Redis, purpose: str, capacity: int = _CAPACITY) -> None:
        self._client = client
        self._guard = Guard(purpose)
        self._waiting: deque[Command] = deque(maxlen=capacity)
        self._filled = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None

    def put(self, *command: Any) -> None:
        """Send this command soon. Does not wait, and raises nothing."""
        self._waiting.append(command)
        self._filled.set()

    async def __aenter__(self) -> Self:
        self._sending = asyncio.create_task(self._send_forever())
        return self

    async def __aexit__(self, *_: Any) -> None:
        assert self._sending is not None
        await end(self._sending)
        with contextlib.suppress(TimeoutError, RedisAway):
            async with asyncio.timeout(_FAREWELL_S):
                while self._waiting:
                    await self._send()

    async def _send_forever(self) -> None:
        while True:
            await self._filled.wait()
            try:
                while self._waiting:
                    await self._send()
                self._filled.clear()
            except RedisAway:
                await asyncio.sleep(_AGAIN_S)

    async def _send(self) -> None:
        """Send the oldest; they leave the queue when they were answered, be it by an error."""
        batch = [self._waiting[i] for i in range(min(_BATCH, len(self._waiting)))]

        async def run() -> list[Any]:
            async with self._client.pipeline(transaction=False) as pipe:
                for command in batch:
                    pipe.execute_command(*command)
                return await pipe.execute(raise_on_error=False)

        for answer in await self._guard.ask(run):
            if isinstance(answer, Exception):
                self._guard.warn(answer)
        sent = set(map(id, batch))  # those that overflowed meanwhile are gone already
        while self._waiting and id(self._waiting[0]) in sent:
            self._waiting.popleft()
