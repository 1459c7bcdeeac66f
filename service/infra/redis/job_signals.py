"""Cancellations between processes; the bell rings in its own."""

import contextlib
import re
from typing import Any, Self

from redis.asyncio import Redis

from service.infra.memory.job_signals import JobSignals
from service.infra.redis.channels import Channels
from service.infra.redis.embedding_cache import SCHEMA
from service.infra.redis.outbox import Outbox

_CHANNEL = f"{SCHEMA}:cancel"
_JOB_ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")


class RedisSignals(JobSignals):
    """Cancellations of all processes on one Redis. Sends and listens inside `async with`.

    A cancellation that is lost with Redis is harmless: the row has ended, and its worker sees that
    when it renews its lease.
    """

    def __init__(self, client: Redis) -> None:
        super().__init__()
        self._outbox = Outbox(client, "cancellations, sending")
        self._channels = Channels(
            client, "cancellations, listening", [_CHANNEL], self._heard, lambda channel: None
        )
        self._tasks = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._tasks.enter_async_context(self._channels)
        await self._tasks.enter_async_context(self._outbox)
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self._tasks.aclose()

    def cancel(self, job_id: str) -> None:
        """Ask a running job to stop, wherever it runs; to be called on the event loop."""
        self.interrupt(job_id)
        self._outbox.put("PUBLISH", _CHANNEL, job_id)

    def _heard(self, channel: str, data: bytes) -> None:
        if _JOB_ID.fullmatch(data):
            self.interrupt(data.decode())
