"""The one connection on which a process hears what others publish."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Any, Self

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.infra.ending import end
from service.infra.redis.guard import Guard

log = logging.getLogger("ppd.redis")

_SILENCE_S = 5.0
_AGAIN_S = (0.1, 2.0)


class Channels:
    """Subscribes to channels, and again after every loss of the connection, while the block runs.

    `heard(channel, data)` is called for every message; `joined(channel)` whenever a subscription
    has come into force: what was published before may have been missed.
    """

    def __init__(
        self,
        client: Redis,
        purpose: str,
        always: Iterable[str],
        heard: Callable[[str, bytes], None],
        joined: Callable[[str], None],
    ) -> None:
        self._pool = client.connection_pool
        self._guard = Guard(purpose)
        self._wanted = set(always)
        self._heard = heard
        self._joined = joined
        self._connection: AbstractConnection | None = None
        self._writing = asyncio.Lock()
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._listening = asyncio.create_task(self._listen_forever())
        return self

    async def __aexit__(self, *_: Any) -> None:
        assert self._listening is not None
        await end(self._listening)

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None

    async def join(self, channel: str) -> None:
        """Listen to this channel too; `joined` says when that has come into force."""
        self._wanted.add(channel)
        await self._tell("SUBSCRIBE", channel)

    async def leave(self, channel: str) -> None:
        self._wanted.discard(channel)
        await self._tell("UNSUBSCRIBE", channel)

    async def _tell(self, *command: str) -> None:
        """Write, if there is a connection. A failure to is seen by who listens on it."""
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(RedisError, OSError):
                async with self._writing:
                    await connection.send_command(*command, check_health=False)

    async def _listen_forever(self) -> None:
        wait_s, longest_s = _AGAIN_S
        while True:
            options = {
                **self._pool.connection_kwargs,
                "protocol": 2,
                "retry": Retry(NoBackoff(), 0),
            }
            connection = self._pool.connection_class(**options)
            try:
                await connection.connect()  # type: ignore[no-untyped-call]
                wait_s = _AGAIN_S[0]
                await self._listen(connection)
            except (RedisError, OSError) as error:
                self._guard.warn(error)
            finally:
                self._connection = None
                await connection.disconnect(nowait=True)
            await asyncio.sleep(wait_s)
            wait_s = min(longest_s, wait_s * 2)

    async def _listen(self, connection: AbstractConnection) -> None:
        """Hear until the connection is lost, or silent although it was asked something."""
        async with self._writing:
            self._connection = connection
            await connection.send_command("SUBSCRIBE", *self._wanted, check_health=False)
        asked = False
        while True:
            message = await connection.read_response(timeout=_SILENCE_S)
            if message is None:
                if asked:
                    raise TimeoutError("the connection is silent")
                asked = True
                await self._tell("PING")
                continue
            asked = False
            self._take(message)

    def _take(self, message: Any) -> None:
        if not isinstance(message, list) or len(message) != 3 or not isinstance(message[1], bytes):
            return
        kind, channel, data = message[0], message[1].decode(errors="replace"), message[2]
        if kind == b"message" and isinstance(data, bytes):
            self._heard(channel, data)
        elif kind == b"subscribe" and channel in self._wanted:
            self._joined(channel)
