"""Counts requests and the models' time for all processes together."""

import time
from collections import OrderedDict
from dataclasses import dataclass

from limits import RateLimitItem
from limits.aio.storage import RedisStorage
from redis.asyncio import Redis

from service.infra.memory.rate_limits import RateLimits, Rates
from service.infra.redis.embedding_cache import SCHEMA
from service.infra.redis.guard import Guard, RedisAway

_TOLD_EVERY_S = 0.1
_UNTOLD_PART = 0.01
_EXACT_FROM = 0.9
_COUNTS = 4096
_ASKED_EVERY_S = 1.0


@dataclass
class _Count:
    """What all had counted when Redis was last told, and what came here since."""

    shared: int
    since: int
    told_at: float


class RedisRateLimits(RateLimits):
    """Counts of all processes on one Redis.

    Of somebody who asks often Redis is told ten times a second, or once in a hundredth of the
    limit, and every time when nine tenths of it are used: to ask costs as much as a short request.
    What the models' time of a person has come to is asked once a second.

    While it is away each process goes on with a count of its own, which begins at zero: more is let
    through than the limit says, and nobody is refused for it.
    """

    def __init__(self, client: Redis, rates: Rates) -> None:
        super().__init__(rates)
        self._guard = Guard("rate limits")
        self._counts: OrderedDict[str, _Count] = OrderedDict()
        self._spent_once: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._shared = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix=f"{SCHEMA}:limits",
            connection_pool=client.connection_pool,  # type: ignore[arg-type]
        )

    async def _count(self, name: str, limit: RateLimitItem) -> int:
        known = self._counts.get(name)
        now = time.monotonic()
        if (
            known is not None
            and now - known.told_at < _TOLD_EVERY_S
            and known.since + 1 <= limit.amount * _UNTOLD_PART
            and known.shared + known.since < limit.amount * _EXACT_FROM
        ):
            known.since += 1
            return known.shared + known.since
        untold = 1
        if known is not None:
            untold, known.since, known.told_at = known.since + 1, 0, now
        shared = await self._add(name, limit, untold)
        self._counts[name] = _Count(shared, known.since if known is not None else 0, now)
        self._counts.move_to_end(name)
        if len(self._counts) > _COUNTS:
            self._counts.popitem(last=False)
        return shared

    async def _add(self, name: str, limit: RateLimitItem, amount: int) -> int:
        expiry_s = limit.get_expiry()
        try:
            return await self._guard.ask(lambda: self._shared.incr(name, expiry_s, amount))
        except RedisAway:
            return await super()._add(name, limit, amount)

    async def _spent(self, name: str) -> int:
        known = self._spent_once.get(name)
        if known is not None and time.monotonic() - known[1] < _ASKED_EVERY_S:
            return known[0]
        try:
            spent = await self._guard.ask(lambda: self._shared.get(name))
        except RedisAway:
            return await super()._spent(name)
        self._spent_once[name] = spent, time.monotonic()
        self._spent_once.move_to_end(name)
        if len(self._spent_once) > _COUNTS:
            self._spent_once.popitem(last=False)
        return spent
