"""Asks Redis, and for a while does not ask again when it did not answer."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import RedisError, ResponseError

log = logging.getLogger("ppd.redis")

_DEADLINE_S = 2.0
_FIRST_REST_S = 0.25
_LONGEST_REST_S = 4.0
_WARN_EVERY_S = 30.0

Answer = TypeVar("Answer")


class RedisAway(Exception):  # noqa: N818 - it is the name of the state
    """Redis did not answer, or is left alone for a moment because it did not."""


class RedisRefused(RedisAway):
    """Redis answered with an error: it is full, say, or the key holds something else."""


class Guard:
    """A circuit breaker for one purpose, with one warning in half a minute.

    While Redis is away one call in every rest tries it; all others are told so at once.
    """

    def __init__(self, purpose: str) -> None:
        self._purpose = purpose
        self._failures = 0
        self._rests_until = 0.0
        self._warned_at = -_WARN_EVERY_S

    async def ask(self, command: Callable[[], Awaitable[Answer]]) -> Answer:
        """What `command` gives within two seconds; raises RedisAway, and nothing else of Redis."""
        if self._failures:
            if time.monotonic() < self._rests_until:
                raise RedisAway(self._purpose)
            self._rest()  # for all but this call
        try:
            async with asyncio.timeout(_DEADLINE_S):
                answer = await command()
        except ResponseError as error:
            self._failures = 0
            self.warn(error)
            raise RedisRefused(self._purpose) from error
        except (RedisError, OSError) as error:
            self._failures += 1
            self._rest()
            self.warn(error)
            raise RedisAway(self._purpose) from error
        self._failures = 0
        return answer

    def warn(self, error: object) -> None:
        """Log what went wrong, unless that was done a moment ago."""
        if time.monotonic() - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = time.monotonic()
            log.warning("%s: going on without Redis: %r", self._purpose, error)

    def _rest(self) -> None:
        rest_s = min(_LONGEST_REST_S, _FIRST_REST_S * 2.0 ** min(self._failures, 10))
        self._rests_until = time.monotonic() + rest_s
