"""Who waits takes a place, and gives it back when the client goes; streams break off in silence."""

import asyncio
import gc
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.api_calls import code_of, protected
from tests.running_service import Service

pytestmark = pytest.mark.anyio


async def opened(service: Service, path: str, body: bytes, *headers: str) -> Any:
    """The two ends of a connection that has sent this POST."""
    port = int(service.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {service.key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    await writer.drain()
    return reader, writer


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def services_of(service: Service) -> Any:
    return service.parts.app.app.state.services  # type: ignore[attr-defined]


async def test_those_who_wait_do_not_outlive_their_clients(service: Service) -> None:
    service.runtime.gate.clear()
    waits = services_of(service).waits
    opened_now = []
    for path in ("/generate", "/v1/images/generations"):
        body = b'{"prompt": "a fox", "seed": 5}'
        opened_now += [await opened(service, path, body, "Prefer: wait=60") for _ in range(3)]
    await until(lambda: waits.count() == 6)
    for _, writer in opened_now:
        writer.transport.abort()
    await until(lambda: not waits.count())


async def test_one_wait_too_many_is_answered_at_once(start: Any) -> None:
    service: Service = await start(max_waits=1)
    service.runtime.gate.clear()
    client = service.client()
    first = asyncio.create_task(service.generate(client))
    await until(lambda: services_of(service).waits.count() == 1)
    wait = {"Prefer": "wait=60"}
    answer = await client.post("/generate", json={"prompt": "a fox"}, headers=wait)
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers
    answer = await client.post("/v1/images/generations", json={"prompt": "a fox"})
    assert (answer.status_code, code_of(answer)) == (503, "streams_full")
    service.runtime.gate.set()
    assert (await first)["status"] == "succeeded"


async def test_streams_of_pictures_that_are_broken_off_write_nothing(
    start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    service: Service = await start()
    service.runtime.step_s, service.runtime.preview_every = 0.02, 1
    caplog.set_level(logging.WARNING)
    for round in range(3):
        body = b'{"prompt": "a fox", "steps": 20, "stream": true, "partial_images": 3, "seed": %d}'
        streams = [
            await opened(service, "/v1/images/generations", body % (10 * round + i))
            for i in range(4)
        ]
        for reader, _ in streams:
            await reader.readuntil(b"200")
        await asyncio.sleep(0.05 * round)
        for _, writer in streams:
            writer.transport.abort()
        await until(lambda: not services_of(service).streams.count())
        gc.collect()
        await asyncio.sleep(0.1)
    assert [record.getMessage() for record in caplog.records] == []


async def test_pictures_are_cached_for_an_hour_and_signed_ones_as_long_as_their_address(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = service.client()
    body = {"prompt": "a fox", "response_format": "url"}
    with monkeypatch.context() as earlier:
        earlier.setattr("itsdangerous.TimestampSigner.get_timestamp", timestamp_in(-3000))
        answer = await client.post("/v1/images/generations", json=body)
    address = answer.json()["data"][0]["url"]
    shown = await service.bare().get(address)
    age_s = int(shown.headers["cache-control"].rsplit("=")[-1])
    assert 500 < age_s <= 600
    assert shown.headers["cross-origin-resource-policy"] == "cross-origin"
    job = await service.generate(client)
    own = await client.get(job["result"]["images"][0]["url"])
    assert own.headers["cache-control"] == "private, max-age=3600"
    assert own.headers["cross-origin-resource-policy"] == "same-origin"


def timestamp_in(seconds: int) -> Any:
    return lambda self: int(time.time()) + seconds


@pytest.mark.parametrize("path", ["/metrics", "/docs", "/docs.css", "/images/signed/x", "/"])
async def test_what_everybody_may_ask_is_counted(start: Any, path: str) -> None:
    service: Service = await start(rate_limit_address="3/day", rate_limit_session="3/day")
    client = service.bare()
    statuses = [(await client.get(path)).status_code for _ in range(6)]
    assert statuses[-1] == 429
    if path == "/":
        assert statuses[:4].count(200) == 4, "the first as a stranger, then as a session"


@pytest.mark.parametrize("name", [".", ".."])
async def test_no_user_is_called_as_clients_shorten_paths(service: Service, name: str) -> None:
    client = service.client()
    answer = await client.post("/generate", json={"prompt": "a fox", "user_id": name})
    assert answer.status_code == 422
    assert (await client.get(f"/jobs?user_id={name}")).status_code == 422


async def test_the_schema_names_the_key_of_every_protected_call(service: Service) -> None:
    paths = (await service.bare().get("/openapi.json")).json()["paths"]
    for call in protected(service):
        assert paths[call.path][call.method.lower()].get("security"), call.name
