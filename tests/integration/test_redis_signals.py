"""A cancellation reaches every process; an interruption stays in its own."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service.infra.redis.client import open_redis
from service.infra.redis.job_signals import RedisSignals
from tests.servers import Redis as Server

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def process(url: str) -> AsyncIterator[RedisSignals]:
    client = open_redis(url)
    try:
        async with RedisSignals(client) as signals:
            async with asyncio.timeout(20):  # it listens
                while not (await client.pubsub_numsub("ppd:1:cancel"))[0][1]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            yield signals
    finally:
        await client.aclose()


def told_in_a_thread(signals: RedisSignals, job_id: str) -> threading.Event:
    """Set once the model's thread sees the cancellation."""
    told = threading.Event()

    def model() -> None:
        for _ in range(1000):
            if signals.cancelled(job_id):
                told.set()
                return
            threading.Event().wait(0.01)

    threading.Thread(target=model, daemon=True).start()
    return told


async def test_every_process_is_told_and_its_model_sees_it(redis_url: str) -> None:
    async with process(redis_url) as api, process(redis_url) as one, process(redis_url) as two:
        waiting = [told_in_a_thread(signals, "a") for signals in (api, one, two)]
        api.cancel("a")
        assert api.cancelled("a"), "here at once"
        for told in waiting:
            assert await asyncio.to_thread(told.wait, 10)
        assert not one.cancelled("b")
        one.forget("a")
        assert not one.cancelled("a")
        assert two.cancelled("a")


async def test_a_process_that_stops_interrupts_its_own_job_only(redis_url: str) -> None:
    async with process(redis_url) as one, process(redis_url) as two:
        one.interrupt("a")
        one.cancel("b")
        assert await asyncio.to_thread(told_in_a_thread(two, "b").wait, 10)
        assert one.cancelled("a")
        assert not two.cancelled("a")


async def test_the_bell_rings_in_its_own_process(redis_url: str) -> None:
    async with process(redis_url) as one:
        one.ring()
        async with asyncio.timeout(5):
            await one.wait(60)
        await one.wait(0.01)


async def test_what_is_no_job_id_is_passed_over(redis_url: str) -> None:
    async with process(redis_url) as one, process(redis_url) as two:
        for noise in (b"", b"\xff", b"a b", b"x" * 65):
            await one._outbox._client.publish("ppd:1:cancel", noise)
        one.cancel("a")
        assert await asyncio.to_thread(told_in_a_thread(two, "a").wait, 10)
        assert list(two._cancelled) == ["a"]


async def test_after_a_restart_of_redis_cancellations_arrive_again(
    redis_url: str, redis_store: Server
) -> None:
    async with process(redis_url) as one, process(redis_url) as two:
        redis_store.kill()
        try:
            one.cancel("a")
            assert one.cancelled("a")
            await asyncio.sleep(0.3)
        finally:
            redis_store.start()
        async with asyncio.timeout(20):
            number = 0
            while not two.cancelled(f"b{number}"):
                number += 1
                one.cancel(f"b{number}")
                await asyncio.sleep(0.2)
