"""What only a database with several writers can get wrong about adapters."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.infra.adapters import keep
from service.infra.pictures.folder_store import FolderImageStore
from service.infra.sql import migrate
from service.infra.sql.database import Database
from service.infra.sql.jobs.generations import NewGeneration
from service.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    url = Settings(
        database_url=postgres_url, redis_url="redis://none", session_secret="x" * 32
    ).database
    await asyncio.to_thread(migrate.upgrade, url)
    made = Database(url)
    yield made
    await made.close()


async def test_an_adapter_is_not_removed_under_a_job_that_is_just_coming(
    database: Database, tmp_path: Path
) -> None:
    images = FolderImageStore(tmp_path / "images")
    row = await keep(database, images, b"one", base_model="m", encoder_id="e")

    async def remove() -> None:
        async with database.write() as store:
            await store.adapters.remove(row.version)

    async with database.write() as store:
        assert await store.adapters.activate(row.version)
    async with database.write() as coming:
        new = NewGeneration(tenant="t", user_pk=None, user_id=None, request={})
        (job,) = await coming.jobs.add_generations([new], priority=10, expiry_s=60)
        async with database.write() as store:
            assert await store.adapters.deactivate()
        removing = asyncio.create_task(remove())
        await asyncio.sleep(0.5)
        assert not removing.done()
    with pytest.raises(ValueError, match="1 unfinished jobs are pinned"):
        await asyncio.wait_for(removing, 30)
    async with database.write() as store:
        stored = await store.jobs.get(job.id)
        assert stored is not None
        assert stored.adapter_version == row.version
        await store.jobs.cancel(stored)
    await asyncio.wait_for(remove(), 30)
    async with database.read() as store:
        assert list(await store.adapters.all()) == []


async def test_a_trial_is_pinned_only_while_it_is_in_service(
    database: Database, tmp_path: Path
) -> None:
    """Whatever was read before: it may end, and be removed, until the job's row is written."""
    images = FolderImageStore(tmp_path / "images")
    first, trial = [
        (await keep(database, images, data, base_model="m", encoder_id="e")).version
        for data in (b"one", b"two")
    ]

    async def remove() -> None:
        async with database.write() as store:
            await store.adapters.withdraw()
        async with database.write() as store:
            await store.adapters.remove(trial)

    async def share() -> None:
        async with database.write() as store:
            assert await store.adapters.activate(first)
            assert await store.adapters.activate(trial, 0.5)

    new = NewGeneration(tenant="t", user_pk=None, user_id=None, request={}, trial_version=trial)
    await share()
    async with database.write() as coming:
        (job,) = await coming.jobs.add_generations([new], priority=10, expiry_s=60)
        removing = asyncio.create_task(remove())
        await asyncio.sleep(0.5)
        assert not removing.done()
    with pytest.raises(ValueError, match="1 unfinished jobs are pinned"):
        await asyncio.wait_for(removing, 30)
    async with database.write() as store:
        stored = await store.jobs.get(job.id)
        assert stored is not None
        assert stored.adapter_version == trial
        await store.jobs.cancel(stored)
    await share()
    async with database.write() as coming:
        assert (await coming.adapters.serving()).trial == trial
        await asyncio.wait_for(remove(), 30)
        late = replace(new, id="1" * 32)
        await coming.jobs.add_generations([late], priority=10, expiry_s=60)
    async with database.read() as store:
        stored = await store.jobs.get("1" * 32)
        assert stored is not None
        assert stored.adapter_version == first


async def test_two_processes_keep_the_same_adapter_at_once(
    database: Database, tmp_path: Path
) -> None:
    images = FolderImageStore(tmp_path / "images")
    kept = await asyncio.gather(
        *(keep(database, images, b"one", base_model="m", encoder_id="e") for _ in range(8))
    )
    assert len({row.version for row in kept}) == 1
    async with database.read() as store:
        assert len(await store.adapters.all()) == 1
