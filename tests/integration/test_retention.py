"""What is kept long enough goes by itself; by default what is nobody's or a session's."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from service.actions import housekeeping
from service.actions.erasure import Receipt, erase_person
from service.infra.sql.tables import Base, Image, Job, User, now
from tests.integration.conftest import Start
from tests.running_service import Service

pytestmark = pytest.mark.anyio


def parts_of(service: Service) -> Any:
    return service.parts.app.app.state.services  # type: ignore[attr-defined]


def files_of(service: Service) -> int:
    return len(list((service.settings.data_dir / "images").rglob("*.png")))


async def age(service: Service, days: int) -> None:
    """Let all that is there have happened this many days earlier, and let the chores be due."""
    earlier = now() - timedelta(days=days)
    async with service.database.write() as store:
        for column in (Image.created_at, Job.finished_at, User.seen_at, User.created_at):
            await store.session.execute(update(column.class_).values({column.key: earlier}))
        await store.session.execute(text("UPDATE chores SET begun_at = '1970-01-01 00:00:00'"))


async def count(service: Service, table: str) -> int:
    async with service.database.read() as store:
        rows = select(func.count()).select_from(Base.metadata.tables[table])
        return int(await store.session.scalar(rows) or 0)


async def fill(service: Service) -> str:
    client = service.client()
    await service.answer(client, "ann")
    job = await service.generate(client, user_id="ann")
    await service.generate(client)
    return str(job["id"])


async def test_by_default_all_that_is_a_persons_of_a_key_is_kept(service: Service) -> None:
    job_id = await fill(service)
    await age(service, 4000)
    await housekeeping.tidy(parts_of(service))
    assert (await service.client().get(f"/jobs/{job_id}")).status_code == 200
    assert files_of(service) == 1, "that of nobody has gone"


async def test_pictures_go_and_jobs_stay(start: Start) -> None:
    service: Service = await start(retain_pictures_days=30)
    job_id = await fill(service)
    await age(service, 29)
    await housekeeping.tidy(parts_of(service))
    assert files_of(service) == 2
    await age(service, 31)
    await housekeeping.tidy(parts_of(service))
    assert (files_of(service), await count(service, "images")) == (0, 0)
    job = (await service.client().get(f"/jobs/{job_id}")).json()
    assert job["status"] == "succeeded"
    gone = await service.client().get(job["result"]["images"][0]["url"])
    assert (gone.status_code, gone.json()["code"]) == (404, "image_not_found")


async def test_jobs_go_with_their_pictures_and_profiles_stay(start: Start) -> None:
    service: Service = await start(retain_jobs_days=3)
    await fill(service)
    await age(service, 4)
    service.runtime.gate.clear()
    body = {"prompt": "a fox", "user_id": "ann"}
    waiting = (await service.client().post("/generate", json=body)).json()["id"]
    await housekeeping.tidy(parts_of(service))
    assert files_of(service) == 0
    assert [await count(service, name) for name in ("jobs", "images")] == [1, 0]
    service.runtime.gate.set()
    await service.until(service.client(), waiting, "succeeded")
    state = (await service.client().get("/users/ann/preferences")).json()
    assert (state["status"], state["answered"]) == ("ready", 4)


async def test_people_for_whom_nothing_is_asked_are_erased_and_others_are_not(
    start: Start,
) -> None:
    service: Service = await start(retain_inactive_users_days=365, retain_jobs_days=3)
    client = service.client()
    await fill(service)
    await service.answer(client, "bob")
    await age(service, 366)
    await service.generate(client, user_id="bob")  # so bob was seen today
    await housekeeping.tidy(parts_of(service))
    assert (await client.get("/users/ann/preferences")).status_code == 404
    assert (await client.get("/users/bob/preferences")).json()["status"] == "ready"
    assert await count(service, "users") == 1
    assert files_of(service) == 1


async def test_more_than_one_batch_goes_in_one_turn(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "BATCH", 2)
    monkeypatch.setattr("service.actions.leftovers.BATCH", 2)
    service: Service = await start(retain_pictures_days=1)
    await service.generate(service.client(), n=4)
    await service.generate(service.client())
    await age(service, 2)
    await housekeeping.tidy(parts_of(service))
    assert (files_of(service), await count(service, "images_to_delete")) == (0, 0)


async def test_only_one_of_many_processes_does_a_chore(service: Service) -> None:
    async with service.database.write() as store:
        await store.chores.begin("retention", timedelta(0))
        assert not await store.chores.begin("retention", timedelta(hours=1))
        assert await store.chores.begin("retention", timedelta(0))


async def test_who_comes_back_before_the_erasure_stays(service: Service) -> None:
    await fill(service)
    await age(service, 40)

    async def erased() -> Receipt | None:
        month = timedelta(days=30)
        return await erase_person(parts_of(service), "default", "ann", who="test", unseen_for=month)

    answer = await service.client().put("/users/ann/profile", json={"text": "I like fog."})
    assert answer.status_code in (200, 202), answer.text
    assert await erased() is None
    assert await count(service, "users") == 1
    await age(service, 29)
    assert await erased() is None
    await age(service, 31)
    assert await erased() is not None
    assert await count(service, "users") == 0


async def test_a_picture_that_is_noted_already_is_noted_once(service: Service) -> None:
    await fill(service)
    async with service.database.write() as store:
        (first, second) = (await store.session.scalars(select(Image.key))).all()
        await store.deletions.note_keys([first, first])
        await store.deletions.note(Image.key.in_([first, second]))
        assert len(await store.deletions.oldest(100_000)) == 2
