"""What is dear is bounded, shared, and refused before it is read."""

import base64
import contextlib
import io
from collections.abc import AsyncIterator

import httpx
import pytest
from PIL import Image

from service.actions.gate import Gate
from tests.integration.conftest import Start
from tests.running_service import Service

pytestmark = pytest.mark.anyio

JSON_TYPE = {"Content-Type": "application/json"}
MiB = 2**20


def picture() -> str:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


async def sent(client: httpx.AsyncClient, user_id: str, image: str) -> httpx.Response:
    choice = {"caption": "mine", "images": [image, image], "preferred": 0}
    return await client.post(f"/users/{user_id}/preferences", json={"choices": [choice]})


def gate_of(service: Service) -> Gate:
    gate = service.parts.app.app.state.services.gate  # type: ignore[attr-defined]
    assert isinstance(gate, Gate)
    return gate


async def test_nothing_is_read_for_whom_has_no_room_for_it(start: Start) -> None:
    service: Service = await start(max_uploads_per_user=3)
    client = service.client()
    assert (await sent(client, "ann", picture())).status_code == 202
    no_picture = base64.b64encode(b"no picture").decode()
    refused = await sent(client, "ann", no_picture)
    assert (refused.status_code, refused.json()["code"]) == (409, "upload_quota")
    assert (await sent(client, "bob", no_picture)).status_code == 422


async def test_requests_with_pictures_are_bounded_and_refused_with_a_time(start: Start) -> None:
    service: Service = await start(max_requests_with_pictures=8)
    gate, client = gate_of(service), service.client()
    with contextlib.ExitStack() as held:
        for _ in range(2):
            held.enter_context(gate.request_with_pictures(("default", "", "ann")))
        refused = await sent(client, "ann", picture())
        assert (refused.status_code, refused.json()["code"]) == (429, "too_much_at_once")
        assert int(refused.headers["retry-after"]) > 0
        assert (await sent(client, "bob", picture())).status_code == 202
    assert (await sent(client, "ann", picture())).status_code == 202


async def test_bodies_are_refused_before_they_are_read_where_too_many_are_held(
    start: Start,
) -> None:
    service: Service = await start(
        max_held_body_bytes=MiB, max_body_bytes=MiB // 2, max_upload_body_bytes=MiB // 2
    )
    gate, client = gate_of(service), service.client()
    with gate.holding_bytes(("other", "", "x")) as held:
        held.take(MiB - 2**17)
        for content in (bytes(2**18), in_chunks(2**18)):
            refused = await client.post("/generate", content=content, headers=JSON_TYPE)
            told = refused.status_code, refused.json()["code"]
            assert told in ((503, "busy"), (429, "too_much_at_once"))
            assert int(refused.headers["retry-after"]) > 0
        assert (await service.generate(client))["status"] == "succeeded"
    after = await client.post("/generate", content=bytes(2**18), headers=JSON_TYPE)
    assert after.status_code == 400
    assert gate._bodies.held == 0


async def in_chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(0, size, 2**14):
        yield bytes(2**14)
