"""A failure after the commit takes no committed picture away; one before it leaves none behind."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from PIL import Image

from service.infra.sql.store import Store
from tests.running_service import Service

pytestmark = pytest.mark.anyio


def own_pair() -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(buffer, format="PNG")
    mine = base64.b64encode(buffer.getvalue()).decode()
    return {"caption": "my own", "images": [mine, mine], "preferred": 0}


def fail_once_pictures_are_stored(
    service: Service, monkeypatch: pytest.MonkeyPatch, error: BaseException, *, commits: bool
) -> None:
    """The transaction after the next stored picture raises: behind its commit, or before it."""
    services = service.parts.app.app.state.services  # type: ignore[attr-defined]
    put, write = services.images.put, services.database.write
    stored: list[str] = []

    async def noting(key: str, data: bytes) -> None:
        await put(key, data)
        stored.append(key)

    def fail_if_due() -> None:
        if stored:
            stored.clear()
            raise error

    @asynccontextmanager
    async def failing() -> AsyncIterator[Store]:
        async with write() as store:
            yield store
            if not commits:
                fail_if_due()
        fail_if_due()

    monkeypatch.setattr(services.images, "put", noting)
    monkeypatch.setattr(services.database, "write", failing)


def files_of(service: Service) -> int:
    return len(list((service.settings.data_dir / "images").rglob("*.png")))


@pytest.mark.parametrize("error", [asyncio.CancelledError(), RuntimeError("late")])
async def test_uploads_that_were_committed_stay(
    service: Service, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    client = service.client()
    with monkeypatch.context() as patched:
        fail_once_pictures_are_stored(service, patched, error, commits=True)
        answer = await client.post("/users/ann/preferences", json={"choices": [own_pair()]})
    assert answer.status_code == 500
    (choice,) = (await client.get("/users/ann/preferences")).json()["choices"]
    for url in choice["images"]:
        assert (await client.get(url)).status_code == 200


async def test_uploads_that_were_not_committed_go(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = service.client()
    with monkeypatch.context() as patched:
        fail_once_pictures_are_stored(service, patched, RuntimeError("early"), commits=False)
        answer = await client.post("/users/ann/preferences", json={"choices": [own_pair()]})
    assert answer.status_code == 500
    assert files_of(service) == 0
    assert (await client.get("/users/ann/preferences")).status_code == 404


@pytest.mark.parametrize("commits", [True, False])
async def test_a_job_keeps_its_pictures_exactly_if_it_succeeded(
    service: Service, monkeypatch: pytest.MonkeyPatch, commits: bool
) -> None:
    client = service.client()
    with monkeypatch.context() as patched:
        fail_once_pictures_are_stored(service, patched, RuntimeError("x"), commits=commits)
        job_id = (await client.post("/generate", json={"prompt": "a fox", "steps": 2})).json()["id"]
        job = await service.until(client, job_id, "succeeded" if commits else "failed")
    await service.generate(client)  # the worker is past the first job
    if commits:
        assert (await client.get(job["result"]["images"][0]["url"])).status_code == 200
    assert files_of(service) == (2 if commits else 1)
