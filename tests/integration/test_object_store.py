"""The service over an S3-compatible store: the same as over a folder, and honest when it fails."""

import base64
import io
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from PIL import Image as PillowImage
from sqlalchemy import select

from service.actions import housekeeping
from service.infra.sql.tables import Image, now
from tests.integration.conftest import Start
from tests.running_service import Service
from tests.s3_server import Bucket, s3_server

pytestmark = pytest.mark.anyio


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with s3_server() as server:
        yield server


@pytest.fixture
async def service(start: Start, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setattr("service.infra.pictures.object_store._PROBE_EVERY_S", 0.0)
    service: Service = await start(**bucket.settings, s3_timeout_s=1.0)
    return service


def own_pairs(count: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    PillowImage.new("RGB", (32, 32), "red").save(buffer, format="PNG")
    mine = base64.b64encode(buffer.getvalue()).decode()
    pair = {"caption": "my own", "images": [mine, mine], "preferred": 0}
    return {"choices": [pair] * count}


def parts_of(service: Service) -> Any:
    return service.parts.app.app.state.services  # type: ignore[attr-defined]


async def rows_of(service: Service) -> dict[str, Image]:
    async with service.database.read() as store:
        return {image.key: image for image in await store.session.scalars(select(Image))}


async def test_every_object_is_named_after_its_owner_and_its_content(
    service: Service, bucket: Bucket
) -> None:
    client = service.client()
    job = await service.generate(client, user_id="ann", n=2)
    await client.post("/users/ann/preferences", json=own_pairs(1))
    rows = await rows_of(service)
    assert bucket.keys == set(rows)
    for key, image in rows.items():
        if image.kind == "generated":
            assert key == f"{job['id']}/1-{image.position}-{image.sha256}.png"
        else:
            assert key == f"uploads/{image.user_pk}/{image.id}-{image.sha256}.png"
        answer = await client.get(f"/images/{image.id}")
        assert answer.content == bucket.objects[f"test/{key}"]
        assert answer.headers["cache-control"].startswith("private")
    receipt = (await client.delete("/users/ann")).json()
    assert receipt["erased"]["images"] == 4
    assert receipt["pending_images"] == 0
    assert bucket.objects == {}


async def test_pictures_under_keys_of_earlier_versions_are_still_read(
    service: Service, bucket: Bucket
) -> None:
    client = service.client()
    job = await service.generate(client)
    async with service.database.write() as store:
        image = (await store.session.scalars(select(Image))).one()
        old = f"{job['id']}/1-0.png"
        bucket.objects[f"test/{old}"] = bucket.objects.pop(f"test/{image.key}")
        bucket.stored_at[f"test/{old}"] = now()
        image.key = old
    assert (await client.get(job["result"]["images"][0]["url"])).status_code == 200


@pytest.mark.parametrize("fault", ["500", "slow", "reset"])
async def test_a_store_that_is_away_is_said_at_once_and_seen_when_it_is_back(
    service: Service, bucket: Bucket, fault: Any
) -> None:
    client = service.client()
    url = (await service.generate(client))["result"]["images"][0]["url"]
    held = dict(bucket.objects)
    bucket.fault = fault
    began = time.monotonic()
    ready = await client.get("/health/ready")
    assert ready.status_code == 503
    assert "the image store does not answer" in ready.json()["reason"]
    for answer in (
        await client.post("/generate", json={"prompt": "a fox"}),
        await client.post("/users/ann/preferences", json=own_pairs(1)),
        await client.get(url),
    ):
        assert (answer.status_code, answer.json()["code"]) == (503, "storage")
        assert int(answer.headers["retry-after"]) > 0
    assert time.monotonic() - began < 15
    assert (await client.get("/health/live")).status_code == 200
    bucket.fault = None
    assert (await client.get("/health/ready")).status_code == 200
    assert (await client.get(url)).status_code == 200
    assert (await client.get("/users/ann/preferences")).status_code == 404
    assert bucket.objects == held
    await service.generate(client)


async def test_a_job_whose_picture_cannot_be_stored_fails_and_leaves_nothing(
    service: Service, bucket: Bucket
) -> None:
    client = service.client()
    service.runtime.gate.clear()
    job_id = (await client.post("/generate", json={"prompt": "a fox", "n": 2})).json()["id"]
    await service.until(client, job_id, "running")
    bucket.fault = "500"
    service.runtime.gate.set()
    job = await service.until(client, job_id, "failed")
    assert job["error"]["code"] == "storage"
    bucket.fault = None
    assert await rows_of(service) == {}
    await service.generate(client)
    assert bucket.keys == set(await rows_of(service))


async def test_pictures_of_a_failed_job_that_the_store_would_not_delete_go_later(
    service: Service, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = service.client()
    images = parts_of(service).images
    put = images.put

    async def breaks_after(key: str, data: bytes) -> None:
        await put(key, data)
        bucket.fault = "500"
        raise OSError("the answer was lost")

    with monkeypatch.context() as patched:
        patched.setattr(images, "put", breaks_after)
        job_id = (await client.post("/generate", json={"prompt": "a fox"})).json()["id"]
        await service.until(client, job_id, "failed")
    assert len(bucket.objects) == 1
    bucket.fault = None
    await housekeeping.tidy(parts_of(service))
    assert bucket.objects == {}


@pytest.mark.parametrize("damage", ["other bytes", "deleted"])
async def test_an_upload_that_is_not_what_was_sent_is_read_into_no_profile(
    service: Service, bucket: Bucket, damage: str
) -> None:
    client = service.client()
    await client.post("/users/ann/preferences", json=own_pairs(3))
    key = sorted(bucket.objects)[0]
    bucket.objects[key] = next(iter(bucket.objects.values()))[:-1] + b"?"
    if damage == "deleted":
        del bucket.objects[key]
    answer = await client.post(
        "/users/ann/preferences", json=own_pairs(1), headers={"Prefer": "wait=60"}
    )
    assert answer.json()["status"] == "failed"
    assert answer.json()["error"]["code"] == "storage"
    assert service.runtime.encoded == []
    image_id = re.search(r"/([0-9a-f]{32})-", key)
    assert image_id is not None
    read = await client.get(f"/images/{image_id[1]}")
    assert (read.status_code, read.json()["code"]) == (503, "storage")


async def test_an_erasure_while_the_store_is_away_is_carried_out_when_it_is_back(
    service: Service, bucket: Bucket
) -> None:
    client = service.client()
    url = (await service.generate(client, user_id="ann", n=2))["result"]["images"][0]["url"]
    bucket.fault = "500"
    receipt = await client.delete("/users/ann")
    assert receipt.status_code == 200
    assert (receipt.json()["erased"]["images"], receipt.json()["pending_images"]) == (2, 2)
    assert (await client.get(url)).status_code == 404
    await housekeeping.tidy(parts_of(service))
    assert len(bucket.objects) == 2
    bucket.fault = None
    await housekeeping.tidy(parts_of(service))
    assert bucket.objects == {}
    async with service.database.read() as store:
        assert len(await store.deletions.oldest(100_000)) == 0


async def test_orphans_of_yesterday_go_and_those_of_today_may_be_of_a_job_in_flight(
    service: Service, bucket: Bucket
) -> None:
    await service.generate(service.client())
    (kept,) = bucket.keys
    for key, age in ((kept, 3), ("lost/1-0.png", 2), ("fresh/1-0.png", 0)):
        bucket.objects.setdefault(f"test/{key}", b"x")
        bucket.age(key, now() - timedelta(days=age))
    async with service.database.write() as store:
        await store.chores.begin("orphans", timedelta(0))
    await housekeeping.tidy(parts_of(service))
    assert "lost/1-0.png" in bucket.keys, "it was not due yet"
    await housekeeping.sweep_orphans(parts_of(service), now() - housekeeping.ORPHAN_AGE)
    assert bucket.keys == {kept, "fresh/1-0.png"}
