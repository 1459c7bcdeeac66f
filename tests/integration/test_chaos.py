"""Two tenants, two API replicas, four workers; and stores that go away under load."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import func, select

from service.infra.sql.tables import Image, Job
from tests.known_people import ANSWERS, ASKED, Person, pixels
from tests.production import Deployment, deployment
from tests.servers import Postgres, Redis

pytestmark = pytest.mark.anyio

TENANTS = ("default", "shop")
PEOPLE = tuple(f"person-{i}" for i in range(8))


@pytest.fixture
async def deployed(
    postgres_url: str, redis_url: str, tmp_path: Path, pool_dir: Path
) -> AsyncIterator[Deployment]:
    wide = {"PPD_MAX_QUEUED_JOBS_PER_CALLER": "1000", "PPD_MAX_QUEUED_JOBS": "2000"}
    async with deployment(postgres_url, redis_url, tmp_path / "data", pool_dir, **wide) as made:
        for _ in range(4):
            made.worker(concurrency=2, step_s=0.01)
        await made.all_ready()
        yield made


def people() -> list[Person]:
    """Names are the same in both tenants; no two of all answered alike, in either version."""
    everybody = list(itertools.product(TENANTS, PEOPLE))
    return [
        Person(tenant, name, (ANSWERS[i], ANSWERS[(i + 1) % len(ANSWERS)]))
        for i, (tenant, name) in enumerate(everybody)
    ]


async def picture_of(client: httpx.AsyncClient, job: dict[str, Any]) -> np.ndarray[Any, Any]:
    (image,) = job["result"]["images"]
    answer = await client.get(image["url"])
    assert answer.status_code == 200, answer.text
    return pixels(answer.content)


async def expect_each_made_once(deployed: Deployment, jobs: list[str]) -> None:
    """There are these jobs and no others, each with one picture."""
    async with deployed.database.read() as store:
        kept = select(Job.id).where(Job.kind == "generate")
        assert sorted(await store.session.scalars(kept)) == sorted(jobs)
        assert sorted(await store.session.scalars(select(Image.job_id))) == sorted(jobs)


async def test_two_hundred_jobs_of_two_tenants_each_get_their_own_taste(
    deployed: Deployment,
) -> None:
    urls = [deployed.url, await deployed.another_replica()]
    clients = {
        tenant: [await deployed.client_of(tenant, url) for url in urls] for tenant in TENANTS
    }
    everybody = people()
    await asyncio.gather(*(p.choose(clients[p.tenant][i % 2], 1) for i, p in enumerate(everybody)))

    async def ask(person: Person, number: int) -> str:
        client = clients[person.tenant][number % 2]
        job_id, _ = await asked_until_accepted(client, person, f"{version}-{number}")
        return job_id

    asked: dict[str, tuple[Person, int]] = {}
    turns = [everybody[(7 * i) % len(everybody)] for i in range(100)]
    for version in (1, 2):
        if version == 2:  # while the first hundred wait or run
            again = everybody[::2]
            await asyncio.gather(
                *(p.choose(clients[p.tenant][i % 2], 2) for i, p in enumerate(again))
            )
        ids = await asyncio.gather(*(ask(person, i) for i, person in enumerate(turns)))
        for job_id, person in zip(ids, turns, strict=True):
            asked[job_id] = person, 2 if version == 2 and person in again else 1

    assert len(asked) == 200
    for number, (job_id, (person, version)) in enumerate(asked.items()):
        client = clients[person.tenant][(number + 1) % 2]  # made by one replica, seen by the other
        job = await finished(client, job_id)
        assert job["status"] == "succeeded", job
        assert job["result"]["profile_version"] == version
        np.testing.assert_array_equal(await picture_of(client, job), person.picture(version))
        stranger = clients[TENANTS[person.tenant == TENANTS[0]]][0]
        assert (await stranger.get(f"/jobs/{job_id}")).status_code == 404
    await expect_each_made_once(deployed, list(asked))
    async with deployed.database.read() as store:
        workers = select(func.count(Job.worker_id.distinct())).where(Job.kind == "generate")
        assert await store.session.scalar(workers) == 4


async def finished(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    """The job when it has ended; 503 is asked again."""
    async with asyncio.timeout(180):
        while True:
            answer = await client.get(f"/jobs/{job_id}")
            if answer.status_code == 503:
                expect_away(answer)
            else:
                assert answer.status_code == 200, answer.text
                if answer.json()["status"] in ("succeeded", "failed", "canceled", "expired"):
                    return dict(answer.json())
            await asyncio.sleep(0.05)


def expect_away(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) > 0


async def asked_until_accepted(
    client: httpx.AsyncClient, person: Person, key: str
) -> tuple[str, int]:
    """Ask for a picture; the job, and how often the answer was 503.

    Whoever is answered so asks again with the same key, as a client would: a busy machine may also
    have no connection free in time.
    """
    headers = {"Idempotency-Key": key}
    async with asyncio.timeout(120):
        for away in itertools.count():
            body = {**ASKED, "user_id": person.name, "fresh": True}
            answer = await client.post("/generate", json=body, headers=headers)
            if answer.status_code == 202:
                return str(answer.json()["id"]), away
            expect_away(answer)
            await asyncio.sleep(0.2)
    raise AssertionError("never accepted")


async def load(
    deployed: Deployment, person: Person, lane: int, until: asyncio.Event
) -> tuple[list[str], int]:
    """Ask for pictures one after the other; the accepted jobs, and how many answers were 503."""
    accepted, away = [], 0
    for number in itertools.count():
        if until.is_set():
            break
        job_id, refused = await asked_until_accepted(deployed.client, person, f"{lane}-{number}")
        accepted.append(job_id)
        away += refused
        seen = await deployed.client.get(f"/jobs/{accepted[-1]}")
        if seen.status_code == 200:
            assert seen.json()["id"] == accepted[-1]
        else:
            expect_away(seen)
        await asyncio.sleep(0.05)
    return accepted, away


async def under_load(deployed: Deployment, harm: Callable[[], Awaitable[None]]) -> tuple[int, int]:
    """Do `harm` while four people ask for pictures; how many they got, how many answers were 503.

    Every accepted job succeeds without help, once, with the picture of its person.
    """
    four = people()[:4]
    for person in four:
        await person.choose(deployed.client, 1)
    ends = asyncio.Event()
    lanes = [asyncio.create_task(load(deployed, person, i, ends)) for i, person in enumerate(four)]
    await asyncio.sleep(1)
    await harm()
    await deployed.ready()
    await asyncio.sleep(1)
    ends.set()
    done = await asyncio.gather(*lanes)
    for person, (accepted, _) in zip(four, done, strict=True):
        for job_id in accepted:
            job = await finished(deployed.client, job_id)
            assert job["status"] == "succeeded", job
            made = await picture_of(deployed.client, job)
            np.testing.assert_array_equal(made, person.picture(1))
    jobs = [job_id for accepted, _ in done for job_id in accepted]
    await expect_each_made_once(deployed, jobs)
    assert deployed.workers_alive() == 4
    return len(jobs), sum(away for _, away in done)


async def test_redis_that_forgets_and_restarts_empty_under_load_loses_no_job(
    deployed: Deployment, redis_store: Redis
) -> None:
    async def harm() -> None:
        for _ in range(3):
            await asyncio.to_thread(redis_store.empty)
            await asyncio.sleep(0.3)
        for _ in range(2):
            await asyncio.to_thread(redis_store.kill)
            await asyncio.sleep(1.5)
            await asyncio.to_thread(redis_store.start)
            await asyncio.sleep(1)

    try:
        jobs, _ = await under_load(deployed, harm)
    finally:
        if not redis_store.answers():
            redis_store.start()
    assert jobs > 20


async def test_postgresql_that_restarts_under_load_loses_no_job(
    deployed: Deployment, postgres: Postgres
) -> None:
    async def harm() -> None:
        for stop in (postgres.kill, postgres.stop):
            await asyncio.to_thread(stop)
            await asyncio.sleep(1.5)
            await asyncio.to_thread(postgres.start)
            await asyncio.sleep(2)

    try:
        jobs, away = await under_load(deployed, harm)
    finally:
        if not postgres.answers():
            postgres.start()
    assert jobs > 10
    assert away > 0, "it was never away while somebody asked"
