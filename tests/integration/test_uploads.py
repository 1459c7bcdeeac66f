"""Own pictures have a quota and never fill the disk; what is refused leaves nothing behind."""

import base64
import io
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.integration.conftest import Start
from tests.running_service import Service

pytestmark = pytest.mark.anyio

PLENTY = 2**60


def own_pair(seed: int = 0, side_px: int = 32) -> dict[str, Any]:
    pixels = np.random.default_rng(seed).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    mine = base64.b64encode(buffer.getvalue()).decode()
    return {"caption": "my own", "images": [mine, mine], "preferred": 0}


async def post(client: httpx.AsyncClient, user_id: str, *pairs: dict[str, Any]) -> httpx.Response:
    return await client.post(f"/users/{user_id}/preferences", json={"choices": list(pairs)})


def files_of(service: Service) -> int:
    return len(list((service.settings.data_dir / "images").rglob("*.*")))


async def answers_of(client: httpx.AsyncClient, user_id: str) -> int:
    held = await client.get(f"/users/{user_id}/preferences")
    return len(held.json()["choices"]) if held.status_code == 200 else 0


async def test_a_person_has_a_quota_of_pictures(start: Start) -> None:
    service: Service = await start(max_uploads_per_user=4)
    client = service.client()
    assert (await post(client, "ann", own_pair(1))).status_code == 202
    over = await post(client, "ann", own_pair(2), own_pair(3))
    assert (over.status_code, over.json()["code"]) == (409, "upload_quota")
    assert (await answers_of(client, "ann"), files_of(service)) == (1, 2)
    assert (await post(client, "ann", own_pair(2))).status_code == 202
    assert (await post(client, "ann", own_pair(3))).status_code == 409
    assert (await post(client, "bob", own_pair(3))).status_code == 202
    pool = (await client.get("/users/ann/quiz")).json()["pairs"][0]
    answer = await post(client, "ann", {"pair_id": pool["pair_id"], "preferred": 0})
    assert answer.status_code == 202, "pairs of the pool take no room"
    await client.delete("/users/ann")
    assert (await post(client, "ann", own_pair(3))).status_code == 202


async def test_a_repeated_request_is_answered_before_its_pictures_are_looked_at(
    start: Start,
) -> None:
    service: Service = await start(max_uploads_per_user=2)
    client = service.client(headers={"Idempotency-Key": "mine"})
    first = await post(client, "ann", own_pair(1))
    assert first.status_code == 202
    again = await post(client, "ann", own_pair(1))
    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
    other = await post(client, "ann", own_pair(2))
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert files_of(service) == 2


async def test_a_person_has_a_quota_of_bytes(start: Start) -> None:
    service: Service = await start(max_upload_bytes_per_user=100_000)
    client = service.client()
    assert (await post(client, "ann", own_pair(1, side_px=100))).status_code == 202
    over = await post(client, "ann", own_pair(2, side_px=100))
    assert (over.status_code, over.json()["code"]) == (409, "upload_quota")
    assert (await answers_of(client, "ann"), files_of(service)) == (1, 2)


async def test_a_disk_that_is_nearly_full_takes_nothing_and_says_so(start: Start) -> None:
    service: Service = await start(min_free_bytes=PLENTY, ready=False)
    client = service.client()
    refused = await post(client, "ann", own_pair())
    assert (refused.status_code, refused.json()["code"]) == (503, "storage_full")
    assert int(refused.headers["retry-after"]) > 0
    picture = await client.post("/generate", json={"prompt": "a fox", "user_id": "ann"})
    assert (picture.status_code, picture.json()["code"]) == (503, "storage_full")
    assert (await client.get("/users/ann/export")).status_code == 404
    ready = await client.get("/health/ready")
    while "being loaded" in ready.json()["reason"]:
        ready = await client.get("/health/ready")
    assert ready.status_code == 503
    assert "no room" in ready.json()["reason"]
    assert files_of(service) == 0
    pool = (await client.get("/users/ann/quiz")).json()["pairs"][0]
    answer = await post(client, "ann", {"pair_id": pool["pair_id"], "preferred": 0})
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_full"), (
        "rows need room too"
    )


@pytest.mark.parametrize(("number", "code"), [(28, "storage_full"), (5, "storage")])
async def test_a_disk_that_fails_in_the_middle_keeps_nothing_of_the_request(
    service: Service, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    client = service.client()
    calls = []

    def third_fails(*_: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(number, "the disk fails")

    with monkeypatch.context() as patched:
        patched.setattr("service.infra.whole_files.os.fsync", third_fails)
        refused = await post(client, "ann", own_pair(1), own_pair(2))
    assert (refused.status_code, refused.json()["code"]) == (503, code)
    assert len(calls) == 3
    assert (await answers_of(client, "ann"), files_of(service)) == (0, 0)
    assert (await post(client, "ann", own_pair(1), own_pair(2))).status_code == 202
    assert files_of(service) == 4
