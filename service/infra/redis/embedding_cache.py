"""Embeddings in Redis, for all processes. The database is the truth; losing this loses time only.

For one person there are, under `ppd:1:` with the tenant's name and the person's pk:
`embedding:...:<encoder version>:<hash of the reading>`, as `embedding_bytes` writes them;
`embeddings:...`, their names by when they end; `reading:...`, a lock while one is being read;
`forgotten:...`, for a week after the person was erased. A change of any part is another key.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.exceptions import LockError

from ppd_model.types import EncodedUser
from service.core.ports import EmbeddingKey
from service.infra.ending import end
from service.infra.memory.embedding_cache import Readings
from service.infra.redis import embedding_bytes
from service.infra.redis.guard import Guard, RedisAway, RedisRefused, log

SCHEMA = "ppd:1"
"""Goes up when what is kept, or how, changes: old and new processes then keep apart."""

_JITTER = 0.1
_FORGOTTEN_S = 7 * 24 * 3600
_POLL_S = (0.02, 0.25)
_dice = secrets.SystemRandom()

# A tombstone stands before the value; names that ended leave the person's list.
_PUT = """
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('ZADD', KEYS[2], ms + ARGV[2], KEYS[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ms)
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
"""
_FORGET = """
for _, name in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do redis.call('UNLINK', name) end
redis.call('UNLINK', KEYS[1])
redis.call('SET', KEYS[2], '1', 'EX', ARGV[1])
"""


class RedisEmbeddingCache:
    """EmbeddingCache of all processes on one Redis; without it every process reads for itself."""

    def __init__(self, client: Redis, *, ttl_s: float = 24 * 3600, lock_s: float = 10.0) -> None:
        self._client = client
        self._ttl_s = ttl_s
        self._lock_s = lock_s
        self._guard = Guard("embedding cache")
        self._readings = Readings()

    async def get(self, key: EmbeddingKey) -> EncodedUser | None:
        """What was read, if it is here and whole; what is not is deleted."""
        name = _name("embedding", key)
        try:
            data = await self._guard.ask(
                lambda: self._client.getrange(name, 0, embedding_bytes.MAX_BYTES)
            )
            if not data:
                return None
            assert isinstance(data, bytes)
            return embedding_bytes.from_bytes(name, data)
        except (RedisRefused, ValueError) as error:
            log.warning("a cached embedding could not be read and is dropped: %r", error)
            with contextlib.suppress(RedisAway):
                await self._guard.ask(lambda: self._client.unlink(name))
        except RedisAway:
            pass  # the guard has said so
        return None

    async def put(self, key: EmbeddingKey, taste: EncodedUser) -> None:
        """Keep it for about a day, unless its user was forgotten or Redis takes nothing."""
        name = _name("embedding", key)
        ttl_ms = int(self._ttl_s * 1000 * _dice.uniform(1 - _JITTER, 1 + _JITTER))
        longest_ms = int(self._ttl_s * 1000 * (1 + _JITTER)) + 1
        data = embedding_bytes.to_bytes(name, taste)
        names = [name, *_names_of_person(key.tenant, key.user_pk)]
        with contextlib.suppress(RedisAway):
            await self._ask_script(_PUT, names, data, ttl_ms, longest_ms)

    async def forget_user(self, tenant: str, user_pk: str) -> None:
        """Drop everything of one user, and whatever any process puts for it later.

        Raises RedisAway while Redis is away: it is to be asked again.
        """
        await self._ask_script(_FORGET, _names_of_person(tenant, user_pk), _FORGOTTEN_S)

    async def once(
        self, key: EmbeddingKey, read: Callable[[], Awaitable[EncodedUser]]
    ) -> EncodedUser:
        """What is here, else what `read` gives; one reading at a time in all processes.

        A reading that fails fails for its own caller; the next of those who wait then reads.
        """
        async with self._readings.alone(key):  # one of a process asks Redis for the rest of them
            return await self._once_of_all(key, read)

    async def _once_of_all(
        self, key: EmbeddingKey, read: Callable[[], Awaitable[EncodedUser]]
    ) -> EncodedUser:
        """Look, and read when the lock is ours; else look again a little later."""
        lock = Lock(
            self._client,
            _name("reading", key),
            timeout=self._lock_s,
            blocking=False,
            thread_local=False,
        )
        wait_s, longest_s = _POLL_S
        while True:
            taste = await self.get(key)
            if taste is not None:
                return taste
            try:
                ours = await self._guard.ask(lock.acquire)
            except RedisAway:
                return await read()
            if ours:
                break
            await asyncio.sleep(wait_s * _dice.uniform(0.5, 1.5))
            wait_s = min(longest_s, wait_s * 1.5)
        async with self._held(lock):
            taste = await self.get(key)  # it may have come between the look and the lock
            if taste is None:
                taste = await read()
                await self.put(key, taste)
            return taste

    @contextlib.asynccontextmanager
    async def _held(self, lock: Lock) -> AsyncIterator[None]:
        """Keep the lock while the block runs; a process that dies lets it go by its expiry."""
        renewing = asyncio.create_task(self._renew_forever(lock))
        try:
            yield
        finally:
            await end(renewing)
            await self._of_ours(lock.release)

    async def _renew_forever(self, lock: Lock) -> None:
        while True:
            await asyncio.sleep(self._lock_s / 4)
            await self._of_ours(lock.reacquire)

    async def _of_ours(self, change: Callable[[], Awaitable[object]]) -> None:
        """Change a lock that is mostly still ours; after a flush it is another's, or nobody's."""

        async def run() -> None:
            with contextlib.suppress(LockError):
                await change()

        with contextlib.suppress(RedisAway):
            await self._guard.ask(run)

    async def _ask_script(self, script: str, names: list[str], *args: bytes | int) -> None:
        async def run() -> None:
            await self._client.eval(script, len(names), *names, *args)

        await self._guard.ask(run)


def _names_of_person(tenant: str, user_pk: str) -> list[str]:
    """Of the list of a person's embeddings, and of what says that the person was erased."""
    return [f"{SCHEMA}:{kind}:{tenant}:{user_pk}" for kind in ("embeddings", "forgotten")]


def _name(kind: str, key: EmbeddingKey) -> str:
    parts = (key.tenant, key.user_pk, key.encoder_version, key.reading_sha256)
    return ":".join((SCHEMA, kind, *parts))
