"""Counts requests and the models' time in this process, with the `limits` library.

Windows follow the clock (whole minutes for a limit per minute), the same in all processes, so one
question to the store counts a request and tells what is left.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage

from service.core.fairness import Spender

_REFUSED_TRIES = parse("256/15 minutes")
"""Of each API key: what is remembered of more costs more than it is worth."""
_NAMES = {"user": "gpu", "tenant": "gpu-tenant", "sessions": "gpu-sessions", "address": "gpu-lane"}
_PER_SECOND = 1000
"""The models' time is counted in milliseconds: stores count whole numbers."""


UNLIMITED = "1000000000/day"


@dataclass(frozen=True)
class Rates:
    """The limits in the notation of `limits`, "600/minute" say."""

    key: str
    session: str
    address: str
    gpu_seconds: str
    gpu_seconds_of_tenant: str = UNLIMITED
    gpu_seconds_of_sessions: str = UNLIMITED
    gpu_seconds_of_address: str = UNLIMITED


@dataclass(frozen=True)
class Allowance:
    """What somebody has left of a limit in the present window, which ends after `reset_s`."""

    limit: int
    remaining: int
    reset_s: float
    over: bool = False
    """Whether this was more than the limit allows."""


class RateLimits:
    """How often somebody may ask, and how long the models may work for a person.

    Counted for this process alone, together for all in `RedisRateLimits`. Raises nothing.
    """

    def __init__(self, rates: Rates) -> None:
        self._key = parse(rates.key)
        self._session = parse(rates.session)
        self._address = parse(rates.address)
        self._gpu_seconds = {
            "user": parse(rates.gpu_seconds),
            "tenant": parse(rates.gpu_seconds_of_tenant),
            "sessions": parse(rates.gpu_seconds_of_sessions),
            "address": parse(rates.gpu_seconds_of_address),
        }
        self._here = MemoryStorage()

    async def of_key(self, key_pk: str) -> Allowance:
        """Count a request with this API key."""
        return await self._take(self._key, "key", key_pk)

    async def of_session(self, user_id: str) -> Allowance:
        """Count a request of the browser session that owns this user."""
        return await self._take(self._session, "session", user_id)

    async def of_address(self, address: str) -> Allowance:
        """Count a request from this address that came with nothing to know its sender by."""
        return await self._take(self._address, "address", address)

    async def may_remember_try(self, key_pk: str) -> bool:
        """Count a refused try with this key; whether there is room to remember it."""
        return not (await self._take(_REFUSED_TRIES, "try", key_pk)).over

    async def gpu_seconds(self, account: Spender) -> Allowance:
        """What is left of the models' time on somebody's account; counts nothing."""
        kind, who = account
        limit = self._gpu_seconds[kind]
        name, ends_s = _window(limit, _NAMES[kind], who)
        spent = await self._spent(name) / _PER_SECOND
        remaining = max(0, int(limit.amount - spent))
        return Allowance(limit.amount, remaining, ends_s, over=spent >= limit.amount)

    async def charge_gpu_seconds(self, accounts: Sequence[Spender], seconds: float) -> None:
        """Count time that the models have worked, on all of these accounts."""
        for kind, who in accounts:
            limit = self._gpu_seconds[kind]
            name, _ = _window(limit, _NAMES[kind], who)
            await self._add(name, limit, round(seconds * _PER_SECOND))

    async def _take(self, limit: RateLimitItem, kind: str, who: str) -> Allowance:
        name, ends_s = _window(limit, kind, who)
        count = await self._count(name, limit)
        remaining = max(0, limit.amount - count)
        return Allowance(limit.amount, remaining, ends_s, over=count > limit.amount)

    async def _count(self, name: str, limit: RateLimitItem) -> int:
        """Count one request; gives how many there were in this window."""
        return await self._add(name, limit, 1)

    async def _add(self, name: str, limit: RateLimitItem, amount: int) -> int:
        return await self._here.incr(name, limit.get_expiry(), amount)

    async def _spent(self, name: str) -> int:
        return await self._here.get(name)


def _window(limit: RateLimitItem, kind: str, who: str) -> tuple[str, float]:
    """The name of a count in the present window, and the seconds until the window ends."""
    length_s = limit.get_expiry()
    number, into_s = divmod(time.time(), length_s)
    return limit.key_for(kind, who, str(int(number))), length_s - into_s
