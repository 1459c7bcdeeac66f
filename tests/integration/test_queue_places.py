"""Where a job waits in the queue, and for how long about: in the job and in its events."""

import asyncio
from pathlib import Path

import pytest

from tests.integration.test_jobs import events, queue
from tests.production import deployment
from tests.running_service import Service

pytestmark = pytest.mark.anyio


@pytest.mark.both_databases
async def test_a_waiting_job_says_its_place_and_a_guess_of_the_wait(service: Service) -> None:
    client = service.client()
    service.runtime.gate.clear()
    jobs = [await queue(client, steps=10) for _ in range(4)]
    await service.until(client, jobs[0], "running")
    await asyncio.sleep(1.1)  # a look at the queue holds for a second
    seen = [(await client.get(f"/jobs/{job_id}")).json() for job_id in jobs]
    assert "position" not in seen[0]
    assert [job["position"] for job in seen[1:]] == [0, 1, 2]
    assert [job["expected_wait_s"] for job in seen[1:]] == [None] * 3, "nothing was measured yet"
    listed = {job["id"]: job for job in (await client.get("/jobs")).json()["results"]}
    assert [listed[job_id].get("position") for job_id in jobs] == [None, 0, 1, 2]
    service.runtime.gate.set()
    await service.until(client, jobs[-1], "succeeded")

    service.runtime.gate.clear()
    more = [await queue(client, steps=10, n=2) for _ in range(3)]
    await service.until(client, more[0], "running")
    await asyncio.sleep(1.1)
    first, second = [(await client.get(f"/jobs/{job_id}")).json() for job_id in more[1:]]
    # The model says of itself that a picture of ten steps takes it 0.11 s.
    assert 0.0 <= first["expected_wait_s"] <= 0.3
    assert second["expected_wait_s"] == pytest.approx(first["expected_wait_s"] + 0.22, abs=0.11)
    service.runtime.gate.set()
    for job_id in more:
        done = await service.until(client, job_id, "succeeded")
        assert "position" not in done
        assert "expected_wait_s" not in done


@pytest.mark.both_databases
async def test_the_answer_that_takes_a_job_on_says_its_place(service: Service) -> None:
    client = service.client()
    service.runtime.gate.clear()
    first = await queue(client)
    await service.until(client, first, "running")
    for position in range(3):
        await asyncio.sleep(2)  # a look takes less than a tenth of that
        taken = await client.post("/generate", json={"prompt": "a fox", "seed": position})
        assert taken.status_code == 202
        assert (taken.json()["position"], "expected_wait_s" in taken.json()) == (position, True)
    service.runtime.gate.set()


async def test_who_follows_a_waiting_job_hears_how_its_place_changes(service: Service) -> None:
    client = service.client()
    service.runtime.gate.clear()
    jobs = [await queue(client) for _ in range(3)]
    await service.until(client, jobs[0], "running")
    await asyncio.sleep(1.1)
    following = asyncio.create_task(events(client, jobs[2]))
    await asyncio.sleep(2.5)
    await client.delete(f"/jobs/{jobs[1]}")
    await asyncio.sleep(2.5)
    service.runtime.gate.set()
    seen = await following
    assert (seen[0]["event"], seen[0]["data"]["position"]) == ("status", 1)
    told = [event for event in seen if event["event"] == "queue"]
    assert [event["data"]["position"] for event in told] == [0], told
    assert all("id" not in event for event in told)
    assert seen[-1]["data"]["status"] == "succeeded"


async def test_a_replica_knows_places_and_waits_from_what_workers_say(
    postgres_url: str, redis_url: str, tmp_path: Path, pool_dir: Path
) -> None:
    async with deployment(postgres_url, redis_url, tmp_path / "data", pool_dir) as small:
        jobs = [await small.ask(seed=i) for i in range(3)]
        await asyncio.sleep(1.1)
        seen = [await small.job(job_id) for job_id in jobs]
        assert [job["position"] for job in seen] == [0, 1, 2]
        assert [job["expected_wait_s"] for job in seen] == [None] * 3, "no worker is there"
        small.worker(concurrency=1, step_s=0.5)
        await small.all_are(jobs, "succeeded")
        await asyncio.sleep(1.0)  # the worker says every half second how fast it was
        more = [await small.ask(seed=i, steps=20) for i in range(3, 6)]
        await small.all_are(more[:1], "running")
        await asyncio.sleep(1.1)
        first, second = [await small.job(job_id) for job_id in more[1:]]
        assert 0.0 <= first["expected_wait_s"] < second["expected_wait_s"]
        await small.client.delete(f"/jobs/{more[1]}")
