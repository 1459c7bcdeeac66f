"""Embeddings in a real Redis: read once by all, gone with the person, and never in the way."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest
from redis.asyncio import Redis

from ppd_model.types import EncodedUser
from service.core.ports import EmbeddingKey
from service.infra.redis import embedding_bytes
from service.infra.redis.client import open_redis
from service.infra.redis.embedding_cache import RedisEmbeddingCache
from service.infra.redis.guard import RedisAway
from tests.servers import Redis as Server

pytestmark = pytest.mark.anyio

KEY = EmbeddingKey("default", "a" * 32, "vlm-1.paper.greedy.layer-1", "b" * 64)


def taste(value: float = 0.5) -> EncodedUser:
    emb_D = np.full(8, value, np.float32)
    return EncodedUser("Likes fog.", "", emb_D, 0.25, ["fog", "雨"], ["clutter"])


def same(first: EncodedUser | None, second: EncodedUser) -> bool:
    assert first is not None
    return (
        np.array_equal(first.user_emb_D, second.user_emb_D)
        and (first.profile, first.confidence) == (second.profile, second.confidence)
        and (first.likes, first.dislikes) == (second.likes, second.dislikes)
    )


@asynccontextmanager
async def process(url: str, **options: float) -> AsyncIterator[tuple[RedisEmbeddingCache, Redis]]:
    """A cache with connections of its own, as every process has."""
    client = open_redis(url)
    try:
        yield RedisEmbeddingCache(client, **options), client
    finally:
        await client.aclose()


class Encoder:
    """Counts how often it reads; `failures` of the first readings fail."""

    def __init__(self, takes_s: float = 0.05, failures: int = 0) -> None:
        self.takes_s = takes_s
        self.failures = failures
        self.readings = 0

    async def read(self) -> EncodedUser:
        self.readings += 1
        await asyncio.sleep(self.takes_s)
        if self.readings <= self.failures:
            raise RuntimeError("the model failed")
        return taste()


async def test_what_one_process_put_another_gets(redis_url: str) -> None:
    async with process(redis_url) as (one, _), process(redis_url) as (two, client):
        assert await two.get(KEY) is None
        await one.put(KEY, taste())
        assert same(await two.get(KEY), taste())
        other = EmbeddingKey("default", KEY.user_pk, "vlm-2.paper.greedy.layer-1", "b" * 64)
        assert await two.get(other) is None, "another encoder is another key"
        (name,) = [n async for n in client.scan_iter("ppd:1:embedding:*")]
        assert name.decode().split(":")[3:] == [KEY.tenant, KEY.user_pk, *KEY_END]
        assert 0.89 * 24 * 3600 < await client.ttl(name) < 1.11 * 24 * 3600


KEY_END = [KEY.encoder_version, KEY.reading_sha256]


async def test_a_hundred_askers_in_two_processes_read_once(redis_url: str) -> None:
    encoder = Encoder(takes_s=0.3)
    async with process(redis_url) as (one, _), process(redis_url) as (two, client):
        asking = [cache.once(KEY, encoder.read) for cache in (one, two) for _ in range(50)]
        async with asyncio.timeout(30):
            tastes = await asyncio.gather(*asking)
        assert encoder.readings == 1
        assert all(same(found, taste()) for found in tastes)
        assert not [n async for n in client.scan_iter("ppd:1:reading:*")], "the lock is released"
        assert not one._readings._locks
        assert not two._readings._locks


async def test_a_reading_longer_than_the_lock_is_not_begun_twice(redis_url: str) -> None:
    encoder = Encoder(takes_s=1.5)
    async with (
        process(redis_url, lock_s=0.5) as (one, _),
        process(redis_url, lock_s=0.5) as (two, _),
    ):
        async with asyncio.timeout(30):
            await asyncio.gather(one.once(KEY, encoder.read), two.once(KEY, encoder.read))
    assert encoder.readings == 1


async def test_who_waited_for_a_reading_that_failed_reads_by_itself(redis_url: str) -> None:
    encoder = Encoder(failures=1)
    async with process(redis_url) as (one, _), process(redis_url) as (two, _):
        async with asyncio.timeout(30):
            outcomes = await asyncio.gather(
                *(cache.once(KEY, encoder.read) for cache in (one, two, one, two)),
                return_exceptions=True,
            )
    assert sum(isinstance(outcome, RuntimeError) for outcome in outcomes) == 1
    assert encoder.readings == 2


async def test_a_holder_that_dies_frees_the_lock_by_its_expiry(redis_url: str) -> None:
    encoder = Encoder()
    async with process(redis_url, lock_s=0.5) as (cache, client):
        name = f"ppd:1:reading:default:{KEY.user_pk}:{':'.join(KEY_END)}"
        await client.set(name, b"of a process that is gone", px=500)
        async with asyncio.timeout(30):
            assert same(await cache.once(KEY, encoder.read), taste())
        assert encoder.readings == 1


async def test_a_lock_that_another_took_over_is_not_released(redis_url: str) -> None:
    async with process(redis_url) as (cache, client):
        name = f"ppd:1:reading:default:{KEY.user_pk}:{':'.join(KEY_END)}"

        async def read() -> EncodedUser:
            await client.set(name, b"another's token", px=60_000)
            return taste()

        await cache.once(KEY, read)
        assert await client.get(name) == b"another's token"


async def test_a_caller_that_gives_up_frees_the_lock(redis_url: str) -> None:
    encoder = Encoder(takes_s=30)
    quick = Encoder()
    async with process(redis_url) as (one, _), process(redis_url) as (two, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await one.once(KEY, encoder.read)
        async with asyncio.timeout(5):  # the lock alone would last ten seconds
            assert same(await two.once(KEY, quick.read), taste())


def _another(**fields: object) -> Callable[[str], bytes]:
    """A value with our hash over it and other fields in it."""

    def made(name: str) -> bytes:
        body = json.loads(embedding_bytes.to_bytes(name, taste())[32:]) | fields
        text = json.dumps({key: value for key, value in body.items() if value is not None})
        return embedding_bytes._digest(name, text.encode()) + text.encode()

    return made


def _renamed() -> bytes:
    return embedding_bytes.to_bytes("another key", taste())


def _flipped(name: str) -> bytes:
    data = bytearray(embedding_bytes.to_bytes(name, taste()))
    data[-1] ^= 1
    return bytes(data)


HOSTILE: dict[str, Callable[[str], bytes]] = {
    "noise": lambda name: b"\x00\xff" * 100,
    "a length beyond the end": lambda name: b"\xff" * 8 + b"{}",
    "cut short": lambda name: embedding_bytes.to_bytes(name, taste())[:-3],
    "another key's value": lambda name: _renamed(),
    "a flipped bit": _flipped,
    "not finite": lambda name: embedding_bytes.to_bytes(name, taste(float("nan"))),
    "no direction": lambda name: embedding_bytes.to_bytes(name, taste(0.0)),
    "no words": _another(likes=None),
    "no list of words": _another(likes="fog"),
    "half a number": _another(embedding_base64="AAAA"),
    "no base64": _another(embedding_base64="?"),
    "another field": _another(weights=1),
    "two megabytes": lambda name: b"x" * 2**21,
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_damaged_or_foreign_value_counts_as_absent_and_is_deleted(
    redis_url: str, kind: str
) -> None:
    name = f"ppd:1:embedding:default:{KEY.user_pk}:{':'.join(KEY_END)}"
    async with process(redis_url) as (cache, client):
        await client.set(name, HOSTILE[kind](name))
        assert await cache.get(KEY) is None
        assert not await client.exists(name)


async def test_a_key_that_holds_something_else_is_deleted_too(redis_url: str) -> None:
    name = f"ppd:1:embedding:default:{KEY.user_pk}:{':'.join(KEY_END)}"
    async with process(redis_url) as (cache, client):
        await client.rpush(name, b"a list")
        assert await cache.get(KEY) is None
        await cache.put(KEY, taste())
        assert same(await cache.get(KEY), taste())


async def test_a_forgotten_person_is_gone_and_stays_gone(redis_url: str) -> None:
    other = EmbeddingKey("default", "c" * 32, KEY.encoder_version, KEY.reading_sha256)
    second = EmbeddingKey("default", KEY.user_pk, "vlm-2", "d" * 64)
    async with process(redis_url) as (one, client), process(redis_url) as (two, _):
        for key in (KEY, second, other):
            await one.put(key, taste())
        await two.forget_user("default", KEY.user_pk)
        for cache in (one, two):  # also the process that has not been told puts nothing
            await cache.put(KEY, taste())
            assert await cache.get(KEY) is None
            assert await cache.get(second) is None
        assert same(await one.get(other), taste())
        left = [n.decode() async for n in client.scan_iter(f"*{KEY.user_pk}*")]
        assert left == [f"ppd:1:forgotten:default:{KEY.user_pk}"]
        encoder = Encoder()
        assert same(await one.once(KEY, encoder.read), taste())
        assert await one.get(KEY) is None


async def test_who_could_not_be_forgotten_while_redis_was_away_can_be_when_it_is_back(
    redis_url: str, redis_store: Server
) -> None:
    async with process(redis_url) as (cache, client):
        await cache.put(KEY, taste())
        assert redis_store._process is not None
        redis_store._process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(RedisAway):
                await cache.forget_user("default", KEY.user_pk)
        finally:
            redis_store._process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(20):
            while True:
                try:
                    await cache.forget_user("default", KEY.user_pk)
                    break
                except RedisAway:  # housekeeping asks again, until it is done
                    await asyncio.sleep(0.05)
        assert not await client.exists(f"ppd:1:embedding:default:{KEY.user_pk}:{':'.join(KEY_END)}")


async def test_a_persons_list_of_names_forgets_those_that_ended(redis_url: str) -> None:
    async with process(redis_url, ttl_s=0.1) as (cache, client):
        for i in range(20):
            key = EmbeddingKey("default", KEY.user_pk, "vlm-1", f"{i:064x}")
            await cache.put(key, taste())
            await asyncio.sleep(0.02)
        assert await client.zcard(f"ppd:1:embeddings:default:{KEY.user_pk}") < 15


async def answers_quickly(call: Callable[[], Awaitable[object]], within_s: float) -> None:
    async with asyncio.timeout(within_s):
        await call()


async def test_without_redis_nothing_is_kept_nothing_fails_and_nobody_waits_long(
    redis_url: str, redis_store: Server, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Encoder(takes_s=0)
    async with process(redis_url) as (cache, _):
        await cache.put(KEY, taste())
        redis_store.stop()
        try:
            assert await cache.get(KEY) is None
            loop = asyncio.get_running_loop()
            began = loop.time()
            for _ in range(200):
                assert await cache.get(KEY) is None
                await cache.put(KEY, taste())
            assert loop.time() - began < 10, "400 calls would take minutes if each tried"
            assert same(await cache.once(KEY, encoder.read), taste())
            assert encoder.readings == 1
        finally:
            redis_store.start()
        assert len([r for r in caplog.records if "going on without" in r.message]) == 1
        async with asyncio.timeout(20):
            while await cache.get(KEY) is None:
                await cache.put(KEY, taste())
                await asyncio.sleep(0.05)


async def test_a_redis_that_hangs_holds_up_one_call_and_not_all(
    redis_url: str, redis_store: Server
) -> None:
    encoder = Encoder(takes_s=0)
    async with process(redis_url) as (cache, _):
        await cache.put(KEY, taste())
        assert redis_store._process is not None
        redis_store._process.send_signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(15):
                for _ in range(300):
                    assert await cache.get(KEY) is None
                assert same(await cache.once(KEY, encoder.read), taste())
        finally:
            redis_store._process.send_signal(signal.SIGCONT)


async def test_a_full_redis_still_answers_and_takes_nothing(redis_url: str) -> None:
    encoder = Encoder(takes_s=0)
    second = EmbeddingKey("default", KEY.user_pk, "vlm-2", "d" * 64)
    other = EmbeddingKey("default", "c" * 32, KEY.encoder_version, KEY.reading_sha256)
    async with process(redis_url) as (cache, client):
        await cache.put(KEY, taste())
        await client.config_set("maxmemory", "1mb")
        await client.config_set("maxmemory-policy", "noeviction")
        try:
            await cache.put(second, taste())
            assert await cache.get(second) is None
            assert same(await cache.get(KEY), taste())
            assert same(await cache.once(second, encoder.read), taste())
            await cache.forget_user("default", other.user_pk)
            assert same(await cache.get(KEY), taste()), "what is refused for one is no other's loss"
            await cache.forget_user("default", KEY.user_pk)
        finally:
            await client.config_set("maxmemory", "0")
        assert await cache.get(second) is None
        assert await cache.get(KEY) is None, "who was to be forgotten is forgotten now"
        assert await client.exists(f"ppd:1:forgotten:default:{KEY.user_pk}")


async def test_flushed_in_the_middle_of_a_reading_the_embedding_is_still_kept(
    redis_url: str, redis_store: Server
) -> None:
    async with process(redis_url) as (cache, _):

        async def read() -> EncodedUser:
            redis_store.empty()
            return taste()

        assert same(await cache.once(KEY, read), taste())
        assert same(await cache.get(KEY), taste())


async def test_a_redis_that_died_in_the_middle_of_a_reading_costs_nothing_but_the_copy(
    redis_url: str, redis_store: Server
) -> None:
    async with process(redis_url) as (cache, _):

        async def read() -> EncodedUser:
            redis_store.kill()
            return taste()

        try:
            assert same(await cache.once(KEY, read), taste())
        finally:
            redis_store.start()


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379"])
def test_another_kind_of_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="redis"):
        open_redis(url)


def test_tls_is_asked_for_by_the_url_and_checks_certificates() -> None:
    options = open_redis("rediss://redis.example:6380/0").connection_pool
    connection = options.make_connection()
    assert type(connection).__name__ == "SSLConnection"
    assert connection.ssl_context.check_hostname
