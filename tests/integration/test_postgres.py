"""On PostgreSQL writers run beside each other: every rule that decides by what it read holds."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image as PillowImage
from sqlalchemy import func, select, text, update

from service.core.ports import Versions
from service.infra.sql.database import Database
from service.infra.sql.tables import Choice, IdempotencyKey, Image, Job, JobSubject, Profile, User
from service.worker import reencoding
from tests.fake_runtime import FakeRuntime
from tests.running_service import Service, on_postgres, running

pytestmark = pytest.mark.anyio

Replicas = tuple[Service, Service]


@pytest.fixture
async def databases(
    migrated_postgres: Callable[[], str],
) -> AsyncIterator[tuple[Database, Database]]:
    """The same database as two processes see it."""
    url = migrated_postgres()
    pair = Database(url), Database(url)
    yield pair
    for database in pair:
        await database.close()


@pytest.fixture
async def replicas(
    tmp_path: Path, pool_dir: Path, migrated_postgres: Callable[[], str]
) -> AsyncIterator[Replicas]:
    """Two services over one database; no worker takes a job."""
    url = migrated_postgres()
    async with AsyncExitStack() as stack:
        made = []
        for name in ("one", "two"):
            runtime = FakeRuntime()
            runtime.load_gate.clear()
            (tmp_path / name).mkdir()
            if made:
                key_file = made[0].settings.data_dir / "api-key"
                (tmp_path / name / "api-key").write_bytes(key_file.read_bytes())
            made.append(
                await stack.enter_async_context(
                    running(
                        runtime,
                        tmp_path / name,
                        pool_dir,
                        ready=False,
                        max_queued_jobs=1000,
                        max_queued_jobs_per_caller=1000,
                        **on_postgres(url),
                    )
                )
            )
        yield made[0], made[1]


async def at_once(*work: Awaitable[Any]) -> list[Any]:
    async with asyncio.timeout(60):
        return list(await asyncio.gather(*work))


async def count(database: Database, table: Any, *where: Any) -> int:
    async with database.read() as store:
        return (
            await store.session.scalar(select(func.count()).select_from(table).where(*where))
        ) or 0


async def add_user(database: Database, name: str = "ann") -> str:
    async with database.write() as store:
        return (await store.users.get_or_create("t", name)).pk


async def add_jobs(database: Database, number: int, **about: Any) -> list[str]:
    about = {"kind": "generate", "priority": 10, "tenant": "t", "request": {}, **about}
    async with database.write() as store:
        return [(await store.jobs.add(Job(**about))).id for _ in range(number)]


async def status_of(database: Database, job_id: str) -> str | None:
    async with database.read() as store:
        job = await store.jobs.get(job_id)
        return job.status if job is not None else None


async def still_waits(task: "asyncio.Task[Any]") -> bool:
    done, _ = await asyncio.wait([task], timeout=0.3)
    return not done


# People


async def test_a_person_who_comes_twenty_times_at_once_is_one(
    databases: Sequence[Database],
) -> None:
    pks = await at_once(*(add_user(databases[i % 2]) for i in range(20)))
    assert len(set(pks)) == 1
    assert await count(databases[0], User) == 1


async def test_blends_of_new_people_in_any_order_do_not_wait_for_each_other_forever(
    replicas: Replicas,
) -> None:
    clients = [service.client() for service in replicas]

    async def blend(i: int) -> int:
        names = [f"new-{i // 4}-a", f"new-{i // 4}-b", f"new-{i // 4}-c"]
        parts = [{"user_id": name, "weight": 1.0} for name in (names, names[::-1])[i % 2]]
        answer = await clients[i % 2].post("/generate", json={"prompt": "a fox", "blend": parts})
        return answer.status_code

    assert set(await at_once(*(blend(i) for i in range(24)))) == {202}
    assert await count(replicas[0].database, User) == 18


# Answers and versions


async def answers(service: Service, client: httpx.AsyncClient, user_id: str) -> dict[str, Any]:
    pairs = (await client.get(f"/users/{user_id}/quiz")).json()["pairs"]
    return {"choices": [{"pair_id": pair["pair_id"], "preferred": 0} for pair in pairs]}


async def test_versions_of_one_person_asked_for_at_once_are_numbered_one_by_one(
    replicas: Replicas,
) -> None:
    clients = [service.client() for service in replicas]
    body = await answers(replicas[0], clients[0], "ann")

    async def post(i: int) -> int:
        if i == 0 or i % 3:
            chosen = [c | {"preferred": i >> bit & 1} for bit, c in enumerate(body["choices"])]
            answer = await clients[i % 2].post("/users/ann/preferences", json={"choices": chosen})
        else:
            profile = {"text": f"I like fog, {i} times."}
            answer = await clients[i % 2].put("/users/ann/profile", json=profile)
        return answer.status_code

    assert await post(0) == 202
    assert set(await at_once(*(post(i) for i in range(1, 13)))) == {202}
    database = replicas[0].database
    async with database.read() as store:
        versions = (await store.session.scalars(select(Profile).order_by(Profile.version))).all()
        jobs = (await store.session.scalars(select(Job))).all()
    assert [profile.version for profile in versions] == list(range(1, 14))
    assert [profile.status for profile in versions] == ["superseded"] * 12 + ["encoding"]
    assert sorted(job.status for job in jobs) == ["canceled"] * 12 + ["queued"]
    assert await count(database, Choice) == 4, "an answer to the same pair takes its place"


async def test_own_pictures_sent_at_once_stay_within_the_quota(
    tmp_path: Path, pool_dir: Path, migrated_postgres: Callable[[], str]
) -> None:
    buffer = io.BytesIO()
    PillowImage.new("RGB", (32, 32), "red").save(buffer, format="PNG")
    mine = base64.b64encode(buffer.getvalue()).decode()
    body = {"choices": [{"caption": "mine", "images": [mine, mine], "preferred": 0}]}
    async with running(
        FakeRuntime(),
        tmp_path / "d",
        pool_dir,
        ready=True,
        max_uploads_per_user=6,
        **on_postgres(migrated_postgres()),
    ) as service:
        client = service.client()
        sent = await at_once(*(client.post("/users/ann/preferences", json=body) for _ in range(8)))
        assert sorted(a.status_code for a in sent) == [202] * 3 + [409] * 5
        assert await count(service.database, Image) == 6
        assert len(list((service.settings.data_dir / "images").rglob("*.png"))) == 6


async def test_an_encoding_that_a_worker_is_beginning_is_not_overtaken(
    databases: Sequence[Database],
) -> None:
    here, there = databases
    user_pk = await add_user(here)
    async with here.write() as store:
        profile = await store.profiles.add(user_pk, "written", [], 1, "text")
    (job_id,) = await add_jobs(here, 1, kind="encode", user_pk=user_pk, profile_pk=profile.pk)

    async def overtake() -> list[str]:
        async with there.write() as store:
            assert await store.users.alone("t", "ann") is not None
            return [job.id for job in await store.jobs.waiting_encode(user_pk)]

    async with here.write() as store:
        assert await store.claims.claim(["encode"], "w", 60) is not None
        overtaking = asyncio.create_task(overtake())
        assert await still_waits(overtaking)
    assert await overtaking == []
    assert await status_of(here, job_id) == "running"


async def test_workers_that_start_at_once_read_everybody_anew_once(
    databases: Sequence[Database],
) -> None:
    async with databases[0].write() as store:
        for i in range(5):
            user = await store.users.get_or_create("t", f"user-{i}")
            profile = await store.profiles.add(user.pk, "generated", [], 1, "text")
            await store.profiles.finish(profile.pk, "ready", encoder_version="old")
    queued = await at_once(
        *(reencoding.queue_stale(d, Versions("m", "a", "new")) for d in databases * 2)
    )
    assert sum(queued) == 5
    assert await count(databases[0], Job) == 5
    assert await count(databases[0], Profile, Profile.status == "encoding") == 5


# Jobs


async def test_every_job_is_taken_by_one_worker(databases: Sequence[Database]) -> None:
    ids = await add_jobs(databases[0], 20)

    async def work(i: int) -> list[str]:
        taken = []
        while True:
            async with databases[i % 2].write() as store:
                job = await store.claims.claim(["generate"], f"w{i}", 60)
                if job is None:
                    return taken
                assert (job.status, job.attempt, job.seq) == ("running", 1, 1001)
                assert (job.worker_id, job.request) == (f"w{i}", {})
                taken.append(job.id)

    taken = [job_id for ids in await at_once(*(work(i) for i in range(8))) for job_id in ids]
    assert sorted(taken) == sorted(ids)


async def test_a_job_that_is_canceled_as_it_finishes_has_one_end(
    databases: Sequence[Database],
) -> None:
    here, there = databases
    ids = await add_jobs(here, 12)
    async with here.write() as store:
        for _ in ids:
            await store.claims.claim(["generate"], "w", 60)

    async def finish(job_id: str) -> bool:
        async with here.write() as store:
            return await store.claims.finish(job_id, 1, "succeeded", result={})

    async def cancel(job_id: str) -> bool:
        async with there.write() as store:
            job = await store.jobs.find("t", job_id, lock=True)
            assert job is not None
            return await store.jobs.cancel(job)

    for job_id in ids:
        finished, canceled = await at_once(finish(job_id), cancel(job_id))
        assert finished != canceled
        status = await status_of(here, job_id)
        assert status == ("succeeded" if finished else "canceled")


async def test_a_cancel_that_waited_for_the_end_changes_nothing(
    databases: Sequence[Database],
) -> None:
    here, there = databases
    (job_id,) = await add_jobs(here, 1)

    async def cancel() -> bool:
        async with there.write() as store:
            job = await store.jobs.find("t", job_id, lock=True)
            assert job is not None
            return await store.jobs.cancel(job)

    async with here.write() as store:
        await store.claims.claim(["generate"], "w", 60)
        await store.claims.finish(job_id, 1, "succeeded", result={})
        canceling = asyncio.create_task(cancel())
        assert await still_waits(canceling)
    assert await canceling is False
    assert await status_of(here, job_id) == "succeeded"


async def orphans(database: Database, number: int, attempt: int) -> list[str]:
    """Jobs of workers that are gone, as were those of all attempts before."""
    ids = await add_jobs(database, number)
    async with database.write() as store:
        await store.session.execute(
            update(Job)
            .where(Job.id.in_(ids))
            .values(
                status="running",
                attempt=attempt,
                losses=attempt - 1,
                lease_until=datetime(2026, 1, 1, tzinfo=UTC),
            )
        )
    return ids


async def test_two_sweeps_at_once_take_up_each_lost_job_once(
    databases: Sequence[Database],
) -> None:
    again = await orphans(databases[0], 10, attempt=1)
    spent = await orphans(databases[0], 10, attempt=3)

    async def sweep(database: Database) -> tuple[int, list[str]]:
        async with database.write() as store:
            queued, failed = await store.claims.requeue_orphans(3)
            await asyncio.sleep(0.1)
            return len(queued), [job.id for job in failed]

    swept = await at_once(*(sweep(database) for database in databases * 2))
    assert sum(queued for queued, _ in swept) == 10
    assert sorted(i for _, ids in swept for i in ids) == sorted(spent)
    assert await count(databases[0], Job, Job.status == "queued", Job.id.in_(again)) == 10
    assert await count(databases[0], Job, Job.error_code == "worker_crash") == 10


async def test_a_sweep_leaves_what_is_just_being_finished(databases: Sequence[Database]) -> None:
    here, there = databases
    (job_id,) = await orphans(here, 1, 3)
    async with here.write() as store:
        assert await store.claims.finish(job_id, 3, "succeeded", result={})
        async with there.write() as other:
            assert await other.claims.requeue_orphans(3) == ([], [])
    assert await status_of(here, job_id) == "succeeded"


async def test_two_sweeps_at_once_expire_each_job_once(databases: Sequence[Database]) -> None:
    ids = await add_jobs(databases[0], 10, expires_at=datetime(2026, 1, 1, tzinfo=UTC))

    async def expire(database: Database) -> list[str]:
        async with database.write() as store:
            return [job.id for job in await store.claims.expire()]

    ended = await at_once(*(expire(database) for database in databases * 2))
    assert sorted(job_id for some in ended for job_id in some) == sorted(ids)


async def test_leases_and_expiry_go_by_the_databases_clock(
    databases: Sequence[Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    class AnHourLate(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "AnHourLate":
            return super().now(tz) - timedelta(hours=1)  # type: ignore[return-value]

    for module in ("clock", "tables"):
        monkeypatch.setattr(f"service.infra.sql.{module}.datetime", AnHourLate)
    (job_id,) = await add_jobs(databases[0], 1)
    async with databases[0].write() as store:
        assert await store.claims.claim(["generate"], "w", 60) is not None
        assert await store.claims.renew([(job_id, 1)], 90) == {(job_id, 1)}
        left, queued = (
            await store.session.execute(
                text(
                    "SELECT extract(epoch FROM lease_until - clock_timestamp()),"
                    " extract(epoch FROM started_at - created_at) FROM jobs"
                )
            )
        ).one()
    assert 60 < left < 91
    assert 0 <= queued < 30
    async with databases[1].write() as store:
        assert await store.claims.requeue_orphans(3) == ([], [])


# Erasing


async def running_job(database: Database, user_pk: str) -> str:
    (job_id,) = await add_jobs(database, 1, user_pk=user_pk)
    async with database.write() as store:
        await store.claims.claim(["generate"], "w", 60)
    return job_id


def picture(job_id: str, user_pk: str) -> Image:
    about = {"sha256": "x", "size_bytes": 1, "width_px": 1, "height_px": 1}
    return Image(tenant="t", user_pk=user_pk, job_id=job_id, kind="generated", key="k", **about)


async def publish(database: Database, job_id: str, user_pk: str) -> bool:
    """As `handlers.generate` ends."""
    async with database.write() as store:
        held = await store.users.hold_pk(user_pk)
        published = held and await store.claims.finish(job_id, 1, "succeeded", result={})
        if published:
            await store.images.add([picture(job_id, user_pk)])
        return published


async def test_a_job_that_finishes_during_an_erasure_finds_nobody(
    databases: Sequence[Database],
) -> None:
    here, there = databases
    user_pk = await add_user(here)
    job_id = await running_job(here, user_pk)
    async with here.write() as store:
        erased = await store.users.erase("t", "ann")
        assert erased is not None
        assert erased.job_ids == [job_id]
        publishing = asyncio.create_task(publish(there, job_id, user_pk))
        assert await still_waits(publishing)
    assert await publishing is False
    assert [await count(here, table) for table in (User, Job, Image)] == [0, 0, 0]


async def test_an_erasure_takes_along_what_is_just_being_finished(
    databases: Sequence[Database],
) -> None:
    here, there = databases
    user_pk = await add_user(here)
    job_id = await running_job(here, user_pk)

    async def erase() -> list[str]:
        async with there.write() as store:
            erased = await store.users.erase("t", "ann")
            assert erased is not None
            return erased.image_keys

    async with here.write() as store:
        assert await store.users.hold_pk(user_pk)
        assert await store.claims.finish(job_id, 1, "succeeded", result={})
        erasing = asyncio.create_task(erase())
        assert await still_waits(erasing)
        await store.images.add([picture(job_id, user_pk)])
    assert await erasing == ["k"]
    assert [await count(here, table) for table in (User, Job, Image)] == [0, 0, 0]


async def test_everything_at_once_with_erasures_in_between_never_fails(
    replicas: Replicas,
) -> None:
    clients = [service.client() for service in replicas]
    body = await answers(replicas[0], clients[0], "ann")

    async def do(i: int) -> int:
        client, blend = clients[i % 2], [{"user_id": n, "weight": 1.0} for n in ("ann", "bob")]
        calls: list[Callable[[], Awaitable[httpx.Response]]] = [
            lambda: client.post("/generate", json={"prompt": "a fox", "user_id": "ann"}),
            lambda: client.post("/users/ann/preferences", json=body),
            lambda: client.post(
                "/generate", json={"prompt": "a fox", "blend": blend[:: (-1) ** i]}
            ),
            lambda: client.delete(f"/users/{('ann', 'bob')[i // 8 % 2]}"),
            lambda: client.get("/users/ann/export"),
        ]
        return (await calls[i % 5]()).status_code

    assert set(await at_once(*(do(i) for i in range(60)))) <= {200, 202, 404}
    for name in ("ann", "bob"):
        await clients[0].delete(f"/users/{name}")
    left = [await count(replicas[0].database, t) for t in (User, Job, JobSubject, Profile, Choice)]
    assert left == [0, 0, 0, 0, 0]


# Idempotency


async def test_one_key_twenty_times_at_once_over_two_replicas_makes_one_job(
    replicas: Replicas,
) -> None:
    headers = {"Idempotency-Key": "k-1"}
    clients = [service.client(headers=headers) for service in replicas]
    body = {"prompt": "a fox", "user_id": "ann"}
    sent = await at_once(*(clients[i % 2].post("/generate", json=body) for i in range(20)))
    assert {answer.status_code for answer in sent} <= {202, 409}
    early = [answer for answer in sent if answer.status_code == 409]
    assert all(int(answer.headers["retry-after"]) > 0 for answer in early)
    assert len({a.json()["id"] for a in sent if a.status_code == 202}) == 1
    for client in clients:
        replay = await client.post("/generate", json=body)
        assert replay.headers["idempotent-replayed"] == "true"
    other = await clients[1].post("/generate", json={**body, "steps": 3})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert await count(replicas[0].database, Job) == 1
    assert await count(replicas[0].database, IdempotencyKey) == 1


async def test_a_key_that_another_replica_carries_out_is_refused_until_that_is_committed(
    replicas: Replicas,
) -> None:
    client = replicas[0].client(headers={"Idempotency-Key": "k-1"})
    async with replicas[1].database.write() as store:
        assert await store.alone_now("idempotency default k-1")
        refused = await client.post("/generate", json={"prompt": "a fox"})
        assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_key_in_flight")
        assert int(refused.headers["retry-after"]) > 0
    assert (await client.post("/generate", json={"prompt": "a fox"})).status_code == 202
