"""A person is erased at each point of a job's life; nothing of it comes back."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import func, select

from service.infra.sql.store import Store
from service.infra.sql.tables import Base
from tests.integration.conftest import Start
from tests.running_service import Service
from tests.s3_server import Bucket, s3_server

pytestmark = pytest.mark.anyio

REQUEST = {"prompt": "a fox", "user_id": "ann", "steps": 2}


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["folder", "bucket"])
async def service(start: Start, bucket: Bucket, request: pytest.FixtureRequest) -> Service:
    settings = bucket.settings if request.param == "bucket" else {}
    service: Service = await start(**settings)
    return service


def services_of(service: Service) -> Any:
    return service.parts.app.app.state.services  # type: ignore[attr-defined]


async def nothing_is_left(service: Service, bucket: Bucket) -> None:
    async with service.database.read() as store:
        for name in ("users", "jobs", "job_subjects", "images", "choices", "profiles"):
            rows = select(func.count()).select_from(Base.metadata.tables[name])
            assert await store.session.scalar(rows) == 0, name
        assert len(await store.deletions.oldest(100_000)) == 0
    assert list((service.settings.data_dir / "images").rglob("*.png")) == []
    assert bucket.objects == {}


async def past_it(service: Service) -> None:
    """Wait until the worker is past whatever it had, and take the trace of that away."""
    client = service.client()
    await service.generate(client, user_id="next")
    await client.delete("/users/next")


async def test_while_it_waits(service: Service, bucket: Bucket) -> None:
    client = service.client()
    service.runtime.gate.clear()
    jobs = [(await client.post("/generate", json=REQUEST)).json()["id"] for _ in range(3)]
    await service.until(client, jobs[0], "running")
    receipt = (await client.delete("/users/ann")).json()
    assert receipt["erased"]["jobs"] == 3
    service.runtime.gate.set()
    await past_it(service)
    await nothing_is_left(service, bucket)
    assert {spec.prompt for spec in service.runtime.generated} == {"a fox"}
    assert len(service.runtime.generated) == 1, "what waited was never made"


@pytest.mark.parametrize("point", ["before the picture is put", "after it is put"])
async def test_while_its_picture_is_stored(
    service: Service, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    client = service.client()
    images = services_of(service).images
    put, erased = images.put, []

    async def erase() -> None:
        erased.append((await client.delete("/users/ann")).json()["erased"]["jobs"])

    async def put_and_erase(key: str, data: bytes) -> None:
        if point == "before the picture is put" and not erased:
            await erase()
        await put(key, data)
        if not erased:
            await erase()

    monkeypatch.setattr(images, "put", put_and_erase)
    await client.post("/generate", json=REQUEST)
    await past_it(service)
    assert erased == [1]
    await nothing_is_left(service, bucket)


@pytest.mark.parametrize("point", ["before the commit", "after the commit"])
async def test_around_the_commit_of_its_end(
    service: Service, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    client = service.client()
    services = services_of(service)
    put, write = services.images.put, services.database.write
    stored: list[str] = []
    erased: list[int] = []

    async def noting(key: str, data: bytes) -> None:
        await put(key, data)
        stored.append(key)

    async def erase_if_due() -> None:
        if stored and not erased:
            erased.append(0)
            erased[0] = (await client.delete("/users/ann")).json()["erased"]["images"]

    @asynccontextmanager
    async def around() -> AsyncIterator[Store]:
        if point == "before the commit":
            await erase_if_due()
        async with write() as store:
            yield store
        await erase_if_due()

    with monkeypatch.context() as patched:
        patched.setattr(services.images, "put", noting)
        patched.setattr(services.database, "write", around)
        await client.post("/generate", json=REQUEST)
        await past_it(service)
    assert erased == [0 if point == "before the commit" else 1]
    await nothing_is_left(service, bucket)


async def test_after_its_end(service: Service, bucket: Bucket) -> None:
    client = service.client()
    await service.answer(client, "ann")
    await service.generate(client, **REQUEST)
    await service.generate(client, prompt="a fox", blend=[{"user_id": "ann", "weight": 1.0}])
    receipt = (await client.delete("/users/ann")).json()
    assert (receipt["erased"]["images"], receipt["pending_images"]) == (2, 0)
    await nothing_is_left(service, bucket)
