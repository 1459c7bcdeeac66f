"""Who asks too often is told when to come again; the models' time is shared between people."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest

from ppd_model.types import EncodedUser, Generated, ImageRequest, LabelledPair
from service.core.ports import Preview
from service.infra.memory.rate_limits import RateLimits, Rates
from service.infra.redis.client import open_redis
from service.infra.redis.rate_limits import RedisRateLimits
from tests.fake_runtime import FakeRuntime
from tests.integration.conftest import Start
from tests.running_service import Service
from tests.servers import Redis as Server

pytestmark = pytest.mark.anyio

FEW = Rates(key="3/day", session="2/day", address="2/day", gpu_seconds="10/day")


def assert_refused(answer: httpx.Response, code: str, limit: int) -> None:
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code
    assert 0 < int(answer.headers["retry-after"]) <= 24 * 3600
    assert answer.headers["x-ratelimit-limit"] == str(limit)
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert 0 < int(answer.headers["x-ratelimit-reset"]) - time.time() <= 24 * 3600 + 2


async def test_a_key_asks_as_often_as_it_may_and_each_key_for_itself(start: Start) -> None:
    service: Service = await start(rate_limit_key="3/day")
    client, other = service.client(), service.client(await service.new_key("default"))
    answers = [await client.get("/pairs", params={"limit": 1}) for _ in range(2)]
    answers.append(await client.get("/jobs/none"))
    assert [answer.status_code for answer in answers] == [200, 200, 404]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["2", "1", "0"]
    for _ in range(2):
        assert_refused(await client.post("/generate", json={"prompt": "a fox"}), "rate_limited", 3)
    answer = await other.get("/pairs", params={"limit": 1})
    assert (answer.status_code, answer.headers["x-ratelimit-remaining"]) == (200, "2")
    assert service.runtime.generated == []


async def test_a_browser_asks_as_often_as_it_may_and_each_browser_for_itself(start: Start) -> None:
    service: Service = await start(rate_limit_session="2/day")
    browser, me = await service.session()
    for _ in range(2):
        assert (await browser.get(f"/users/{me}/quiz")).status_code == 200
    assert_refused(await browser.get(f"/users/{me}/quiz"), "rate_limited", 2)
    other, me = await service.session()
    assert (await other.get(f"/users/{me}/quiz")).status_code == 200
    assert (await service.client().get("/pairs")).status_code == 200


async def test_strangers_of_one_address_are_counted_together_and_others_are_not(
    start: Start,
) -> None:
    service: Service = await start(rate_limit_address="3/day")
    browser, me = await service.session()  # a new session is a stranger's request
    stranger = service.bare()
    assert (await stranger.get("/pairs")).status_code == 401
    guess = {"Authorization": "Bearer ppd_guessed"}
    assert (await stranger.get("/pairs", headers=guess)).status_code == 401
    assert_refused(await stranger.get("/pairs"), "rate_limited", 3)
    assert_refused(await stranger.get("/pairs", headers=guess), "rate_limited", 3)
    for page in ("/", "/studio"):
        answer = await stranger.get(page)
        assert_refused(answer, "rate_limited", 3)
        assert "set-cookie" not in answer.headers
        assert (await browser.get(page)).status_code == 200, "whoever has a session keeps it"
    assert (await browser.get(f"/users/{me}/quiz")).status_code == 200
    assert (await service.client().get("/pairs")).status_code == 200


async def test_probes_and_files_are_not_counted(start: Start) -> None:
    service: Service = await start(rate_limit_address="1/day")
    stranger = service.bare()
    for path in ("/health/live", "/health/ready", "/static/none.css"):
        for _ in range(3):
            answer = await stranger.get(path)
            assert answer.status_code in (200, 404), path
            assert "x-ratelimit-limit" not in answer.headers


class Slow(FakeRuntime):
    """Says that every picture took six seconds of the models' time; reading takes a real one."""

    read_s = 0.0

    def generate(
        self,
        specs: Sequence[ImageRequest],
        on_step: Callable[[int, int], None],
        cancelled: Callable[[], bool],
        on_preview: Callable[[Preview], None],
        **whose: Any,
    ) -> list[Generated]:
        pictures = super().generate(specs, on_step, cancelled, on_preview, **whose)
        return [replace(picture, denoise_s=5.0, decode_s=1.0) for picture in pictures]

    def encode(self, pairs: Sequence[LabelledPair], seed: int, text: str | None) -> EncodedUser:
        time.sleep(self.read_s)
        return super().encode(pairs, seed, text)


async def test_a_person_has_a_share_of_the_models_time_and_each_their_own(start: Start) -> None:
    service: Service = await start(Slow(), gpu_seconds_per_user="10/day")
    client = service.client()
    await service.generate(client, user_id="ann")
    await service.generate(client, user_id="ann", seed=8)  # 6 of 10 seconds were used before it
    asked = {"prompt": "a fox", "user_id": "ann"}
    assert_refused(await client.post("/generate", json=asked), "gpu_quota", 10)
    pairs = (await client.get("/users/ann/quiz")).json()["pairs"]
    choices = [{"pair_id": pair["pair_id"], "preferred": 0} for pair in pairs]
    refused = await client.post("/users/ann/preferences", json={"choices": choices})
    assert_refused(refused, "gpu_quota", 10)
    held = (await client.get("/users/ann/preferences")).json()
    assert held["answered"] == 0, "what was refused is not stored in part"
    three = {"choices": choices[:3]}
    assert (await client.post("/users/ann/preferences", json=three)).status_code == 202
    await service.generate(client, user_id="bob")
    for seed in range(3):
        await service.generate(client, seed=seed)  # for nobody


async def test_new_ids_nobody_and_blends_evade_no_count_of_the_tenant(start: Start) -> None:
    service: Service = await start(Slow(), gpu_seconds_per_tenant="15/day")
    client = service.client()
    await service.generate(client, user_id="ann")
    await service.generate(client, seed=8)  # for nobody: 12 of 15 seconds
    blend = [{"user_id": "ann", "weight": 1.0}, {"user_id": "bob", "weight": 1.0}]
    await service.generate(client, blend=blend)
    for body in ({"user_id": "new"}, {}, {"blend": blend}):
        asked = {"prompt": "a fox", **body}
        assert_refused(await client.post("/generate", json=asked), "gpu_quota", 15)
    other = service.client(await service.new_key("other"))
    await service.generate(other)


async def test_new_sessions_evade_no_count_of_their_address_nor_of_all(start: Start) -> None:
    service: Service = await start(
        Slow(),
        gpu_seconds_per_address="5/day",
        gpu_seconds_of_sessions="11/day",
        trusted_proxies="127.0.0.1",
    )
    asked = {"prompt": "a fox", "steps": 3}
    for address in ("10.0.0.1", "10.0.0.2"):
        first, _ = await service.session(address)
        await service.generate(first)
        second, _ = await service.session(address)
        limit = 5 if address == "10.0.0.1" else 11
        refused = await second.post("/generate", json=asked)
        assert (refused.status_code, refused.json()["code"]) == (429, "gpu_quota")
        assert int(refused.headers["x-ratelimit-limit"]) in (5, limit)
    third, _ = await service.session("10.0.0.3")
    assert_refused(await third.post("/generate", json=asked), "gpu_quota", 11)
    await service.generate(service.client())


async def test_the_time_of_a_reading_counts_and_one_that_stands_asks_for_none(start: Start) -> None:
    runtime = Slow()
    runtime.read_s = 1.1
    service: Service = await start(runtime, gpu_seconds_per_user="1/day")
    client = service.client()
    pairs = (await client.get("/users/ann/quiz")).json()["pairs"]
    body = {"choices": [{"pair_id": pair["pair_id"], "preferred": 0} for pair in pairs]}
    waits = {"Prefer": "wait=60"}
    first = await client.post("/users/ann/preferences", json=body, headers=waits)
    assert first.json()["status"] == "ready"
    asked = {"prompt": "a fox", "user_id": "ann"}
    assert_refused(await client.post("/generate", json=asked), "gpu_quota", 1)
    again = await client.post("/users/ann/preferences", json=body, headers=waits)
    assert (again.status_code, again.json()["profile_version"]) == (200, 1)


async def test_processes_count_together_on_redis(redis_url: str) -> None:
    clients = [open_redis(redis_url) for _ in range(2)]
    one, two = (RedisRateLimits(client, FEW) for client in clients)
    try:
        taken = [await limits.of_key("k") for limits in (one, two, one, two)]
        assert [(a.limit, a.remaining, a.over) for a in taken] == [
            (3, 2, False),
            (3, 1, False),
            (3, 0, False),
            (3, 0, True),
        ]
        assert not (await two.of_key("another")).over
        assert not (await two.of_session("k")).over, "kinds are apart"
        await one.charge_gpu_seconds([("user", "u")], 2.25)
        await two.charge_gpu_seconds([("user", "u")], 7.5)
        assert [(a.remaining, a.over) for a in [await one.gpu_seconds(("user", "u"))]] == [
            (0, False)
        ]
        await one.charge_gpu_seconds([("user", "u")], 0.25)
        assert (await two.gpu_seconds(("user", "u"))).over
        names = [name async for name in clients[0].scan_iter("*")]
        assert names
        for name in names:
            assert name.startswith(b"ppd:1:limits:")
            assert 0 < await clients[0].ttl(name) <= 24 * 3600, "nothing stays for ever"
    finally:
        for client in clients:
            await client.aclose()


async def test_who_asks_often_is_counted_in_full_and_redis_is_told_now_and_then(
    redis_url: str,
) -> None:
    clients = [open_redis(redis_url) for _ in range(2)]
    one, two = (
        RedisRateLimits(client, replace(FEW, key="1000/day", session="1000000/day"))
        for client in clients
    )
    try:
        allowed = 0
        async with asyncio.timeout(60):
            for _ in range(2000):
                answers = await asyncio.gather(*(limits.of_key("k") for limits in (one, two, one)))
                allowed += sum(not answer.over for answer in answers)
                if all(answer.over for answer in answers):
                    break
        assert 1000 <= allowed <= 1000 + 2 * 10, "a hundredth in each process is not told at once"
        told = (await clients[0].info("commandstats"))["cmdstat_evalsha"]["calls"]
        await asyncio.gather(*(one.of_session("s") for _ in range(10)))
        for _ in range(500):
            await one.of_session("s")
        again = (await clients[0].info("commandstats"))["cmdstat_evalsha"]["calls"]
        assert again - told < 250
        await asyncio.sleep(0.2)
        assert (await one.of_session("s")).remaining == 1_000_000 - 511
    finally:
        for client in clients:
            await client.aclose()


async def test_without_redis_each_process_counts_for_itself_and_then_together_again(
    redis_url: str, redis_store: Server
) -> None:
    clients = [open_redis(redis_url) for _ in range(2)]
    one, two = (RedisRateLimits(client, FEW) for client in clients)
    try:
        for _ in range(3):
            await one.of_key("k")
        redis_store.stop()
        try:
            for limits in (one, two):
                assert [(await limits.of_key("k")).over for _ in range(4)] == [False] * 3 + [True]
                await limits.charge_gpu_seconds([("user", "u")], 11)
                assert (await limits.gpu_seconds(("user", "u"))).over
        finally:
            redis_store.start()
        for limits in (one, two):
            async with asyncio.timeout(20):
                while (await limits.gpu_seconds(("user", "u"))).over:  # noqa: ASYNC110 - it rests a moment
                    await asyncio.sleep(0.05)
    finally:
        for client in clients:
            await client.aclose()


async def test_a_full_or_misused_redis_is_as_good_as_none(redis_url: str) -> None:
    client = open_redis(redis_url)
    limits = RedisRateLimits(client, FEW)
    try:
        await limits.of_key("k")
        (name,) = [name async for name in client.scan_iter("*")]
        await client.delete(name)
        await client.rpush(name, b"a list")
        assert [(await limits.of_key("k")).over for _ in range(4)] == [False] * 3 + [True]
        await client.config_set("maxmemory", "1mb")
        try:
            assert [(await limits.of_key("j")).over for _ in range(4)] == [False] * 3 + [True]
        finally:
            await client.config_set("maxmemory", "0")
    finally:
        await client.aclose()


async def test_a_new_window_begins_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = RateLimits(FEW)
    now = 1_000_000 * 86_400.0
    monkeypatch.setattr("service.infra.memory.rate_limits.time.time", lambda: now - 0.5)
    taken = [await limits.of_key("k") for _ in range(4)]
    assert [a.over for a in taken] == [False, False, False, True]
    assert taken[0].reset_s == pytest.approx(0.5)
    monkeypatch.setattr("service.infra.memory.rate_limits.time.time", lambda: now)
    fresh = await limits.of_key("k")
    assert (fresh.remaining, fresh.over, fresh.reset_s) == (2, False, 86_400)
