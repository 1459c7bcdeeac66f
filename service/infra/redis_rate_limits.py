"""Counts requests and the models' time for all processes together."""

from limits import RateLimitItem
from limits.aio.storage import RedisStorage
from redis.asyncio import Redis

from service.infra.rate_limits import CountedRateLimits, Rates
from service.infra.redis_cache import SCHEMA
from service.infra.redis_guard import Guard, RedisAway


class RedisRateLimits(CountedRateLimits):
    """RateLimits of all processes on one Redis.

    While it is away each process goes on with a count of its own, which begins at zero: more is let
    through than the limit says, and nobody is refused for it.
    """

    def __init__(self, client: Redis, rates: Rates) -> None:
        super().__init__(rates)
        self._guard = Guard("rate limits")
        self._shared = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix=f"{SCHEMA}:limits",
            connection_pool=client.connection_pool,  # type: ignore[arg-type]
        )

    async def _add(self, name: str, limit: RateLimitItem, amount: int) -> int:
        expiry_s = limit.get_expiry()
        try:
            return await self._guard.ask(lambda: self._shared.incr(name, expiry_s, amount))
        except RedisAway:
            return await super()._add(name, limit, amount)

    async def _spent(self, name: str) -> int:
        try:
            return await self._guard.ask(lambda: self._shared.get(name))
        except RedisAway:
            return await super()._spent(name)
