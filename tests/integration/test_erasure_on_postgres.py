"""On PostgreSQL writers do not take turns: an erasure and what it meets wait for each other."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import func, select

from service.actions.encodings import encode_job
from service.infra.sql import migrate
from service.infra.sql.database import Database
from service.infra.sql.repositories.users import Erased
from service.infra.sql.tables import Base, Image, Job, JobSubject, User

pytestmark = pytest.mark.anyio


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    url = postgres_url.replace("postgresql:", "postgresql+psycopg:")
    await asyncio.to_thread(migrate.upgrade, url)
    database = Database(url)
    yield database
    await database.close()


async def erase(database: Database, user_id: str = "ann") -> Erased | None:
    async with database.write() as store:
        return await store.users.erase("t", user_id)


async def running_job(database: Database, *subjects: str) -> tuple[Job, User]:
    """A job of ann that a worker has begun."""
    async with database.write() as store:
        user = await store.users.get_or_create("t", "ann")
        job = Job(kind="generate", priority=1, tenant="t", user_pk=user.pk, request={})
        others = [await store.users.get_or_create("t", name) for name in subjects]
        await store.jobs.add(job)
        store.session.add_all(
            JobSubject(job_id=job.id, position=i, user_pk=other.pk, weight=1.0)
            for i, other in enumerate(others)
        )
        claimed = await store.claims.claim(("generate",), "w", 60)
    assert claimed is not None
    return claimed, user


def picture(job: Job) -> Image:
    facts: dict[str, Any] = {"size_bytes": 1, "width_px": 1, "height_px": 1, "sha256": "0" * 64}
    key = f"{job.id}/1-0.png"
    return Image(tenant="t", user_pk=job.user_pk, job_id=job.id, kind="generated", key=key, **facts)


async def waits(task: "asyncio.Task[Any]") -> None:
    """The task is still held up after a while."""
    await asyncio.sleep(0.5)
    assert not task.done()


async def rows(database: Database, name: str) -> int:
    async with database.read() as store:
        count = select(func.count()).select_from(Base.metadata.tables[name])
        return int(await store.session.scalar(count) or 0)


@pytest.mark.parametrize("who", ["ann", "bob"])
async def test_a_picture_that_is_being_committed_is_waited_for_and_deleted(
    database: Database, who: str
) -> None:
    job, user = await running_job(database, "bob")  # ann's job, which uses bob's taste
    async with database.write() as store:
        assert await store.users.hold_pk(user.pk)
        assert await store.claims.finish(job.id, job.attempt, "succeeded", result={})
        await store.images.add([picture(job)])
        erasing = asyncio.create_task(erase(database, who))
        await waits(erasing)
    async with asyncio.timeout(30):
        erased = await erasing
    assert erased is not None
    assert erased.image_keys == [f"{job.id}/1-0.png"]
    async with database.read() as store:
        assert await store.deletions.oldest(10) == erased.image_keys
    assert (await rows(database, "images"), await rows(database, "jobs")) == (0, 0)


async def test_a_worker_that_comes_after_the_erasure_finds_no_job(database: Database) -> None:
    job, user = await running_job(database)

    async def finish() -> bool:
        async with database.write() as store:
            await store.users.hold_pk(user.pk)
            return await store.claims.finish(job.id, job.attempt, "succeeded", result={})

    async with database.write() as store:
        assert await store.users.erase("t", "ann") is not None
        finishing = asyncio.create_task(finish())
        await waits(finishing)
    async with asyncio.timeout(30):
        assert not await finishing


async def test_a_request_that_comes_during_the_erasure_begins_a_new_person(
    database: Database,
) -> None:
    _, old = await running_job(database)

    async def ask() -> str:
        async with database.write() as store:
            user = await store.users.get_or_create("t", "ann")
            job = Job(kind="generate", priority=1, tenant="t", user_pk=user.pk, request={})
            await store.jobs.add(job)
            return user.pk

    async with database.write() as store:
        assert await store.users.erase("t", "ann") is not None
        asking = asyncio.create_task(ask())
        await waits(asking)
    async with asyncio.timeout(30):
        assert await asking != old.pk
    assert (await rows(database, "users"), await rows(database, "jobs")) == (1, 1)


async def test_a_request_that_was_first_is_waited_for_and_erased(database: Database) -> None:
    await running_job(database)
    async with database.write() as store:
        user = await store.users.get_or_create("t", "ann")
        job = Job(kind="generate", priority=1, tenant="t", user_pk=user.pk, request={})
        erasing = asyncio.create_task(erase(database))
        await waits(erasing)
        await store.jobs.add(job)
    async with asyncio.timeout(30):
        erased = await erasing
    assert erased is not None
    assert len(erased.job_ids) == 2
    assert (await rows(database, "users"), await rows(database, "jobs")) == (0, 0)


async def test_of_many_erasures_of_one_person_one_finds_the_person(database: Database) -> None:
    await running_job(database, "bob")
    async with asyncio.timeout(60):
        results = await asyncio.gather(*(erase(database) for _ in range(4)))
    assert len([erased for erased in results if erased is not None]) == 1


async def test_people_of_one_blend_are_erased_at_the_same_time(database: Database) -> None:
    for _ in range(10):
        await running_job(database, "bob", "cleo")
    async with asyncio.timeout(60):
        names = ("ann", "bob", "cleo")
        results = await asyncio.gather(*(erase(database, name) for name in names))
    assert None not in results
    assert (await rows(database, "users"), await rows(database, "jobs")) == (0, 0)


@pytest.mark.parametrize("what", ["person", "taste"])
async def test_a_reading_of_a_further_taste_ends_before_an_erasure_that_waits_for_it(
    database: Database, what: str
) -> None:
    async with database.write() as store:
        taste = await store.users.get_or_create("t", "ann:work", alone=True)
        profile = await store.profiles.add(taste.pk, "written", [], 1, "text")
        await store.jobs.add(encode_job(taste, profile, None, 1))
        job = await store.claims.claim(("encode",), "w", 60)
    assert job is not None

    async def erase_it() -> bool:
        if what == "person":
            return await erase(database) is not None
        async with database.write() as store:
            found = await store.users.taste_to_remove("t", "ann:work")
            assert found is not None
            for one in await store.jobs.unended_in(found.pk):
                await store.jobs.cancel(one)
            await store.users.remove_taste(found)
            return True

    async with database.write() as store:
        assert await store.users.hold_pk(taste.pk)
        erasing = asyncio.create_task(erase_it())
        await waits(erasing)
        assert await store.claims.finish(job.id, job.attempt, "succeeded", result={})
        assert await store.profiles.finish(profile.pk, "failed")
    async with asyncio.timeout(30):
        assert await erasing
    left = 0 if what == "person" else 1
    assert (await rows(database, "users"), await rows(database, "profiles")) == (left, 0)
    assert await rows(database, "jobs") == 0


async def test_tastes_that_begin_at_once_are_one(database: Database) -> None:
    async def begin() -> str:
        async with database.write() as store:
            return (await store.users.get_or_create("t", "ann:work", alone=True)).pk

    assert len(set(await asyncio.gather(*(begin() for _ in range(4))))) == 1
    assert await rows(database, "users") == 2
