"""Open event streams are few, shared between callers, and given back when they end."""

import asyncio
from contextlib import AsyncExitStack

import httpx
import pytest

from tests.integration.conftest import Start
from tests.integration.test_jobs import events, queue
from tests.running_service import Service

pytestmark = pytest.mark.anyio


async def refusal(client: httpx.AsyncClient, job_id: str) -> tuple[int, str]:
    async with asyncio.timeout(10):  # one that is let in would not end
        answer = await client.get(f"/jobs/{job_id}/events")
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    return answer.status_code, answer.json()["code"]


async def test_streams_are_capped_for_a_caller_and_in_all(start: Start) -> None:
    service: Service = await start(max_event_streams=4, max_event_streams_per_caller=2)
    client = service.client()
    service.runtime.gate.clear()
    job_id = await queue(client)
    held = []
    async with AsyncExitStack() as stack:

        async def follow(who: httpx.AsyncClient, what: str) -> None:
            stream = await stack.enter_async_context(who.stream("GET", f"/jobs/{what}/events"))
            assert stream.status_code == 200
            read = stream.aiter_raw()
            await anext(read)
            held.append(read)  # its end would close the stream

        for _ in range(2):
            await follow(client, job_id)
        assert await refusal(client, job_id) == (429, "too_many_streams")
        missing = await client.get("/jobs/none/events")
        assert missing.status_code == 404, "what is not there is said first"
        for _ in range(2):
            browser, _ = await service.session()
            theirs = await queue(browser)
            await follow(browser, theirs)
        assert await refusal(browser, theirs) == (503, "streams_full")
        assert (await client.get(f"/jobs/{job_id}")).status_code == 200
    for _ in range(200):  # clients that went away are noticed
        if not service.parts.app.app.state.services.streams._open:  # type: ignore[attr-defined]
            break
        await asyncio.sleep(0.02)
    service.runtime.gate.set()
    for _ in range(3):  # streams that end by themselves give their place back at once
        assert (await events(client, job_id))[-1]["data"]["status"] == "succeeded"
    assert not service.parts.app.app.state.services.streams._open  # type: ignore[attr-defined]
