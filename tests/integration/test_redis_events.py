"""Who follows a job in one process hears what another does to it, over a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from service.core.messages import JobEvent, end_seq, preview_event, status_event, step_event
from service.infra.redis import events as redis_events
from service.infra.redis.client import open_redis
from service.infra.redis.events import RedisEvents
from tests.servers import Redis as Server

pytestmark = pytest.mark.anyio

RUNNING = status_event(1001, "running")
SUCCEEDED = status_event(end_seq(1, 0), "succeeded")


@asynccontextmanager
async def process(url: str) -> AsyncIterator[tuple[RedisEvents, Redis]]:
    """Events with connections of their own, as every process has them."""
    client = open_redis(url)
    try:
        async with RedisEvents(client) as events:
            yield events, client
    finally:
        await client.aclose()


async def follow(events: RedisEvents, job_id: str = "j", after: int = 0) -> list[int]:
    """The seqs of a job up to its end, or the end of the subscription."""
    seen = []
    async with asyncio.timeout(30), events.subscribe(job_id, after) as stream:
        async for event in stream:
            seen.append(event.seq)
            if event.terminal:
                break
    return seen


async def until_latest(events: RedisEvents, seq: int, job_id: str = "j") -> JobEvent:
    async with asyncio.timeout(20):
        while True:
            latest = await events.latest(job_id)
            if latest is not None and latest.seq >= seq:
                return latest
            await asyncio.sleep(0.01)


async def until_followed(events: RedisEvents, job_id: str = "j", followers: int = 1) -> None:
    async with asyncio.timeout(20):
        while not (  # noqa: ASYNC110
            len(events._followers.of(job_id)) == followers and events._in_force[job_id].is_set()
        ):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)


async def test_a_follower_in_another_process_hears_everything_in_order(redis_url: str) -> None:
    async with process(redis_url) as (api, _), process(redis_url) as (worker, _):
        worker.publish("j", RUNNING)
        worker.publish("j", step_event(1, 1, 200))
        await until_latest(api, 1002)
        following = asyncio.create_task(follow(api, after=1001))
        await until_followed(api)
        for done in range(2, 201):
            worker.publish("j", step_event(1, done, 200))
            worker.publish("other", step_event(1, done, 200))
        worker.publish("j", SUCCEEDED)
        assert await following == [*range(1002, 1202), 1998]
        assert not api._followers._of_job
        assert not api._in_force


async def test_followers_who_come_at_any_moment_miss_nothing(redis_url: str) -> None:
    async with process(redis_url) as (api, _), process(redis_url) as (worker, _):
        following = []
        for done in range(1, 101):
            worker.publish("j", step_event(1, done, 100))
            if done % 5 == 0:
                following.append(asyncio.create_task(follow(api)))
            await asyncio.sleep(0.003)
        worker.publish("j", SUCCEEDED)
        for seen in await asyncio.gather(*following):
            assert seen == [*range(1002, 1102), 1998]


async def test_a_hundred_followers_share_one_connection(redis_url: str) -> None:
    async with process(redis_url) as (api, client), process(redis_url) as (worker, _):
        following = [asyncio.create_task(follow(api, f"j{i % 10}")) for i in range(100)]
        for i in range(10):
            await until_followed(api, f"j{i}", followers=10)
        listening = [c for c in await client.client_list() if int(c["sub"]) > 1]
        assert [int(c["sub"]) for c in listening] == [11]
        for i in range(10):
            worker.publish(f"j{i}", SUCCEEDED)
        assert await asyncio.gather(*following) == [[1998]] * 100
        async with asyncio.timeout(10):
            while any(int(c["sub"]) > 1 for c in await client.client_list()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_what_comes_late_is_dropped_whoever_sends_it(redis_url: str) -> None:
    async with process(redis_url) as (one, _), process(redis_url) as (two, _):
        following = asyncio.create_task(follow(one))
        await until_followed(one)
        one.publish("j", status_event(2001, "running"))
        await until_latest(two, 2001)
        two.publish("j", step_event(1, 7, 9))  # of the attempt before
        two.publish("j", status_event(end_seq(2, 0), "canceled"))
        await until_latest(two, 2998)
        one.publish("j", step_event(3, 1, 9))
        one.publish("marker", RUNNING)
        await until_latest(two, 1001, "marker")
        assert await following == [2001, 2998]
        assert await follow(two) == [2001, 2998]
        assert (await until_latest(two, 2998)).data["status"] == "canceled"


async def test_forgetting_a_job_ends_its_followers_everywhere_and_keeps_late_events_out(
    redis_url: str,
) -> None:
    async with process(redis_url) as (one, client), process(redis_url) as (two, _):
        one.publish("j", RUNNING)
        following = [asyncio.create_task(follow(events)) for events in (one, two)]
        await until_followed(one)
        await until_followed(two)
        two.forget("j")
        assert await asyncio.gather(*following) == [[1001], [1001]]
        one.publish("j", step_event(1, 1, 3))  # the worker has not heard of it yet
        one.publish("marker", RUNNING)
        await until_latest(two, 1001, "marker")
        assert await two.latest("j") is None
        assert not await client.exists("ppd:1:events:j")


async def test_previews_reach_who_follows_elsewhere_and_are_kept_nowhere(redis_url: str) -> None:
    def preview(attempt: int, image: str = "data:image/jpeg;base64,AA==") -> JobEvent:
        return preview_event(attempt, 0, 1, 9, image)

    async with process(redis_url) as (api, client), process(redis_url) as (worker, _):
        worker.publish("j", status_event(2001, "running"))
        await until_latest(api, 2001)
        async with asyncio.timeout(20), api.subscribe("j", 0) as stream:
            assert (await anext(stream)).seq == 2001
            worker.publish("j", preview(1))  # of the attempt before
            worker.publish("j", preview(2, "data:text/html,no picture"))
            worker.publish("j", preview(2, "data:image/jpeg;base64," + "A" * 20_000))
            worker.publish("other", preview(2))
            worker.publish("j", preview(2))
            shown = await anext(stream)
            assert (shown.kind, shown.data["image"]) == ("preview", "data:image/jpeg;base64,AA==")
            worker.publish("j", status_event(2998, "succeeded"))
            assert (await anext(stream)).terminal
            worker.publish("j", preview(2))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.3)
        assert await client.xlen("ppd:1:events:j") == 2
        assert await follow(api) == [2001, 2998]
        worker.forget("k")
        worker.publish("k", preview(0))
        assert await client.keys("ppd:1:events:k") == []


async def test_few_previews_wait_for_a_redis_that_is_away(
    redis_url: str, redis_store: Server
) -> None:
    async with process(redis_url) as (worker, _):
        redis_store.kill()
        try:
            for done in range(1, 500):
                worker.publish("j", preview_event(1, 0, done, 500, "data:image/jpeg;base64,AA=="))
            assert len(worker._previews._waiting) == redis_events._WAITING_PREVIEWS
            assert not worker._outbox._waiting
        finally:
            redis_store.start()


async def test_closing_ends_every_stream_of_this_process_now_and_later(redis_url: str) -> None:
    async with process(redis_url) as (one, _), process(redis_url) as (two, _):
        following = asyncio.create_task(follow(one))
        elsewhere = asyncio.create_task(follow(two))
        await until_followed(one)
        await until_followed(two)
        one.close()
        assert await following == []
        assert await follow(one) == []
        two.publish("j", SUCCEEDED)
        assert await elsewhere == [1998]


async def test_the_memory_of_a_job_is_bounded_and_ends(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.infra.memory.followers._UNREAD", 32)
    async with (
        process(redis_url) as (api, client),
        process(redis_url) as (worker, _),
        api.subscribe("j", 0) as stream,
    ):
        for done in range(1, 401):
            worker.publish("j", step_event(1, done, 400))
        worker.publish("j", SUCCEEDED)
        await until_latest(api, 1998)
        assert await client.xlen("ppd:1:events:j") == redis_events._EVENTS_PER_JOB
        assert 0 < await client.ttl("ppd:1:events:j") <= redis_events._REMEMBERED_S
        await asyncio.sleep(0.1)
        seen = []
        async with asyncio.timeout(10):
            async for event in stream:
                seen.append(event.seq)
                if event.terminal:
                    break
        assert len(seen) <= 33, "one who does not read loses steps"
        assert seen[-1] == 1998, "and not the end"


async def test_giving_up_a_wait_loses_nothing(redis_url: str) -> None:
    async with (
        process(redis_url) as (api, _),
        process(redis_url) as (worker, _),
        api.subscribe("j", 0) as stream,
    ):
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await anext(stream)
        worker.publish("j", RUNNING)
        async with asyncio.timeout(10):
            assert (await anext(stream)).seq == 1001


async def test_after_a_restart_of_redis_followers_hear_again_without_help(
    redis_url: str, redis_store: Server
) -> None:
    async with process(redis_url) as (api, _), process(redis_url) as (worker, _):
        following = asyncio.create_task(follow(api))
        worker.publish("j", RUNNING)
        await until_latest(api, 1001)
        await until_followed(api)
        redis_store.kill()
        try:
            for done in range(1, 6):  # nobody waits, nothing is raised
                worker.publish("j", step_event(1, done, 6))
            assert await api.latest("j") is None
            await asyncio.sleep(0.3)
        finally:
            redis_store.start()
        worker.publish("j", step_event(1, 6, 6))
        worker.publish("j", SUCCEEDED)
        assert await following == [1001, *range(1002, 1008), 1998]


async def test_who_comes_while_redis_is_away_is_let_in_and_hears_later(
    redis_url: str, redis_store: Server
) -> None:
    async with process(redis_url) as (api, _), process(redis_url) as (worker, _):
        redis_store.stop()
        try:
            async with asyncio.timeout(10):
                following = asyncio.create_task(follow(api))
                while not api._followers._of_job:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        finally:
            redis_store.start()
        worker.publish("j", RUNNING)
        worker.publish("j", SUCCEEDED)
        assert await following == [1001, 1998]


async def test_what_was_published_before_the_connection_was_back_is_told_then(
    redis_url: str, redis_store: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.infra.redis.channels._AGAIN_S", (4.0, 4.0))
    async with process(redis_url) as (api, _):
        redis_store.stop()
        try:
            async with asyncio.timeout(10):
                while api._channels.connected:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            following = asyncio.create_task(follow(api))
            async with asyncio.timeout(10):
                while "j" not in api._missed:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        finally:
            redis_store.start()
        async with process(redis_url) as (worker, _):
            worker.publish("j", RUNNING)
            worker.publish("j", SUCCEEDED)
            await until_latest(worker, 1998)
        assert await following == [1001, 1998]


async def test_a_flush_loses_what_was_remembered_and_nothing_that_comes(
    redis_url: str, redis_store: Server
) -> None:
    async with process(redis_url) as (api, _), process(redis_url) as (worker, _):
        worker.publish("j", RUNNING)
        following = asyncio.create_task(follow(api))
        await until_followed(api)
        redis_store.empty()
        assert await api.latest("j") is None
        worker.publish("j", step_event(1, 1, 3))
        worker.publish("j", SUCCEEDED)
        assert await following == [1001, 1002, 1998]


async def test_a_full_redis_remembers_nothing_and_still_passes_on(redis_url: str) -> None:
    async with process(redis_url) as (api, client), process(redis_url) as (worker, _):
        following = asyncio.create_task(follow(api))
        await until_followed(api)
        await client.config_set("maxmemory", "1mb")
        await client.config_set("maxmemory-policy", "noeviction")
        try:
            worker.publish("j", RUNNING)
            worker.publish("j", SUCCEEDED)
            assert await following == [1001, 1998]
        finally:
            await client.config_set("maxmemory", "0")


async def test_what_others_write_there_is_passed_over(redis_url: str) -> None:
    async with process(redis_url) as (api, client), process(redis_url) as (worker, _):
        await client.set("ppd:1:events:j", "not a stream")
        assert await api.latest("j") is None
        following = asyncio.create_task(follow(api))
        await until_followed(api)
        for noise in (
            b"\xff",
            b"null",
            b"[1]",
            b'{"seq": "1", "kind": "step", "data": {}}',
            b'{"seq": 1, "kind": "status", "data": {"status": []}}',
            b'{"seq": 1, "kind": "step", "data": {"step": 1}}',
            b"[" * 100_000,
        ):
            await client.publish("ppd:1:events:j", noise)
        worker.publish("j", RUNNING)
        await until_latest(api, 1001)
        await client.xadd("ppd:1:events:j", {"event": b"\xff", "end": "0"}, id="1500-1")
        worker.publish("j", SUCCEEDED)
        assert await following == [1001, 1998]
        assert await follow(api) == [1001, 1998]


async def test_what_cannot_be_sent_does_not_pile_up(redis_url: str, redis_store: Server) -> None:
    async with process(redis_url) as (worker, _):
        redis_store.stop()
        try:
            for i in range(10_000):
                worker.publish(f"j{i}", RUNNING)
            assert len(worker._outbox._waiting) == 8192
        finally:
            redis_store.start()
        await until_latest(worker, 1001, "j9999")
        assert await worker.latest("j0") is None, "the oldest gave way"


async def test_what_was_published_last_leaves_with_the_process(redis_url: str) -> None:
    async with process(redis_url) as (worker, _):
        worker.publish("j", SUCCEEDED)
    async with process(redis_url) as (api, _):
        assert await follow(api) == [1998]
