"""Worker processes: lost, paused, stopped, poisoned; every job ends once all the same."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from service.infra.sql.tables import Image, Job
from tests.integration.test_jobs import events
from tests.production import AT_ONCE_S, Deployment, deployment
from tests.servers import Postgres, Redis

pytestmark = pytest.mark.anyio


@pytest.fixture
async def deployed(
    postgres_url: str, redis_url: str, tmp_path: Path, pool_dir: Path
) -> AsyncIterator[Deployment]:
    async with deployment(postgres_url, redis_url, tmp_path / "data", pool_dir) as made:
        yield made


async def rows(deployed: Deployment) -> list[Job]:
    async with deployed.database.read() as store:
        return list(await store.session.scalars(select(Job).order_by(Job.started_at)))


async def test_jobs_in_flight_on_a_killed_worker_run_on_the_other_one(
    deployed: Deployment,
) -> None:
    lease_s = 6.0
    deployed.environment["PPD_JOB_LEASE_S"] = str(lease_s)
    gate = deployed.log.with_name("gate")
    jobs = [await deployed.ask(seed=seed) for seed in range(32)]
    first = deployed.worker(concurrency=16, wait_for=gate)

    async def half_of_them_run() -> bool:
        return sum(row.status == "running" for row in await rows(deployed)) == 16

    await deployed.until(half_of_them_run)
    second = deployed.worker(concurrency=32, wait_for=gate)
    await deployed.all_are(jobs, "running")
    lost = {row.id for row in await rows(deployed) if f"-{first.pid}-" in (row.worker_id or "")}
    assert len(lost) == 16
    first.send_signal(signal.SIGKILL)
    killed_at = time.monotonic()

    async def all_run_again() -> bool:
        found = [row for row in await rows(deployed) if row.id in lost]
        return all((row.status, row.attempt) == ("running", 2) for row in found)

    await deployed.until(all_run_again)
    assert time.monotonic() - killed_at < 2 * lease_s
    gate.touch()
    await deployed.all_are(jobs, "succeeded")
    assert {row.id for row in await rows(deployed) if row.attempt > 1} == lost
    async with deployed.database.read() as store:
        pictures = (await store.session.scalars(select(Image.job_id))).all()
    assert sorted(pictures) == sorted(jobs), "each published once"

    async def no_ticket_is_left() -> bool:
        return await deployed.tickets() == {}

    await deployed.until(no_ticket_is_left)
    second.send_signal(signal.SIGTERM)
    assert second.wait(AT_ONCE_S) == 0


async def test_a_worker_that_slept_over_its_lease_publishes_nothing_late(
    deployed: Deployment,
) -> None:
    sleeper = deployed.worker(concurrency=1, step_s=0.5)
    await deployed.ready()
    job_id = await deployed.ask(seed=1)
    await deployed.all_are([job_id], "running")
    sleeper.send_signal(signal.SIGSTOP)
    other = deployed.worker(concurrency=1)
    await deployed.all_are([job_id], "succeeded")
    sleeper.send_signal(signal.SIGCONT)
    assert (await deployed.job(job_id))["status"] == "succeeded"
    other.send_signal(signal.SIGTERM)
    assert other.wait(AT_ONCE_S) == 0
    later = await deployed.ask(seed=2)
    await deployed.all_are(
        [later], "succeeded"
    )  # the sleeper has come past its late job, and works
    found = {row.id: row for row in await rows(deployed)}
    assert found[job_id].attempt == 2
    assert f"-{sleeper.pid}-" in (found[later].worker_id or "")
    async with deployed.database.read() as store:
        images = (await store.session.scalars(select(Image))).all()
    assert sorted(image.job_id or "" for image in images) == sorted([job_id, later])
    assert {path.name for path in deployed.settings.data_dir.rglob("*.png")} == {
        image.key.split("/")[-1] for image in images
    }


async def test_a_poisonous_job_fails_alone(deployed: Deployment) -> None:
    poison = await deployed.ask(prompt="a poison")
    jobs = [await deployed.ask(seed=seed) for seed in range(4)]

    async def ended() -> bool:
        alive = [process for process in deployed.workers if process.poll() is None]
        if not alive:
            deployed.worker(concurrency=8)
        return (await deployed.job(poison))["status"] == "failed"

    await deployed.until(ended, within_s=240)
    assert (await deployed.job(poison))["error"]["code"] == "worker_crash"
    assert [process.returncode for process in deployed.workers[:3]] == [-signal.SIGKILL] * 3
    if deployed.workers[-1].poll() is not None:
        deployed.worker(concurrency=8)
    await deployed.all_are(jobs, "succeeded")


async def test_what_a_worker_shows_reaches_those_who_follow_at_a_replica(
    deployed: Deployment,
) -> None:
    deployed.worker(preview_every=2, step_s=0.3)
    await deployed.ready()
    url = await deployed.another_replica()
    owner, stranger = deployed.client, await deployed.client_of("shop", url)
    job_id = await deployed.ask(steps=8)
    assert (await stranger.get(f"/jobs/{job_id}/events")).status_code == 404
    seen = await events(owner, job_id)
    shown = [event for event in seen if event["event"] == "preview"]
    assert 2 <= len(shown) <= 4
    assert all(event["data"]["image"].startswith("data:image/jpeg;base64,") for event in shown)
    assert seen[-1]["data"]["status"] == "succeeded"
    assert "preview" not in [event["event"] for event in await events(owner, job_id, last="1001")]


async def test_a_worker_whose_model_breaks_says_so_and_exits_for_another_to_come(
    deployed: Deployment,
) -> None:
    reasons = set()
    broken = deployed.worker(concurrency=4)
    await deployed.ready()
    breaks = await deployed.ask(prompt="a short circuit")

    async def has_gone() -> bool:
        reasons.add((await deployed.client.get("/health/ready")).json().get("reason"))
        return broken.poll() is not None

    await deployed.until(has_gone)
    assert broken.returncode == 1
    await has_gone()
    told = [
        reason for reason in reasons if reason and "the model has stopped: CUDA error" in reason
    ]
    assert told
    sound = await deployed.ask(seed=1)
    deployed.worker(concurrency=1)

    async def ended() -> bool:
        if deployed.workers_alive() == 0:
            deployed.worker(concurrency=1)
        return (await deployed.job(breaks))["status"] == "failed"

    await deployed.until(ended, within_s=240)
    assert (await deployed.job(breaks))["error"]["code"] == "worker_crash"
    assert [process.returncode for process in deployed.workers[:3]] == [1] * 3
    if deployed.workers_alive() == 0:
        deployed.worker()
    await deployed.all_are([sound], "succeeded")


async def test_sigterm_ends_an_idle_worker_at_once(deployed: Deployment) -> None:
    worker = deployed.worker()
    await deployed.ready()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(AT_ONCE_S) == 0
    answer = await deployed.client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["reason"] == "no worker takes encode jobs"


async def test_sigterm_lets_jobs_end(deployed: Deployment) -> None:
    worker = deployed.worker(concurrency=2, step_s=0.3)
    await deployed.ready()
    jobs = [await deployed.ask(seed=seed, steps=20) for seed in range(2)]
    await deployed.all_are(jobs, "running")
    waiting = await deployed.ask(seed=9)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(AT_ONCE_S) == 0
    assert [(await deployed.job(job))["status"] for job in jobs] == ["succeeded"] * 2
    assert (await deployed.job(waiting))["status"] == "queued"
    deployed.worker()
    await deployed.all_are([waiting], "succeeded")


async def test_what_does_not_end_within_the_grace_waits_for_another_worker(
    deployed: Deployment,
) -> None:
    deployed.environment["PPD_WORKER_GRACE_S"] = "2"
    worker = deployed.worker(concurrency=3, step_s=1.0)
    await deployed.ready()
    jobs = [await deployed.ask(seed=seed, steps=20) for seed in range(3)]
    await deployed.all_are(jobs, "running")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(AT_ONCE_S) == 0
    assert {(row.status, row.losses) for row in await rows(deployed)} == {("queued", 0)}
    deployed.worker(concurrency=3)
    await deployed.all_are(jobs, "succeeded")


async def test_sigterm_while_the_model_loads(deployed: Deployment) -> None:
    worker = deployed.worker(load_s=60)

    async def loading() -> bool:
        answer = (await deployed.client.get("/health/ready")).json()
        return answer["reason"] == "no worker takes encode jobs yet: the model is being loaded"

    await deployed.until(loading)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(AT_ONCE_S) == 0


async def test_a_second_signal_ends_a_worker_where_it_stands(deployed: Deployment) -> None:
    worker = deployed.worker(step_s=1.0)
    await deployed.ready()
    job_id = await deployed.ask(steps=20)
    await deployed.all_are([job_id], "running")
    worker.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.3)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(AT_ONCE_S) == 128 + signal.SIGINT


async def test_reading_choices_and_painting_on_different_workers(deployed: Deployment) -> None:
    deployed.worker(queues="generate")

    async def reason() -> str:
        return str((await deployed.client.get("/health/ready")).json().get("reason"))

    async def encode_is_missing() -> bool:
        return await reason() == "no worker takes encode jobs"

    await deployed.until(encode_is_missing)
    pairs = (await deployed.client.get("/users/ann/quiz")).json()["pairs"]
    body = {"choices": [{"pair_id": pair["pair_id"], "preferred": 0} for pair in pairs]}
    answer = (await deployed.client.post("/users/ann/preferences", json=body)).json()
    await asyncio.sleep(1)
    assert (await deployed.client.get("/users/ann/preferences")).json()["profile"] is None
    deployed.worker(queues="encode")
    await deployed.ready()
    await deployed.all_are([answer["links"]["job"].split("/")[-1]], "succeeded")
    job_id = await deployed.ask(user_id="ann")
    await deployed.all_are([job_id], "succeeded")
    result = (await deployed.job(job_id))["result"]
    assert (result["personalization_applied"], result["profile_version"]) == (True, 1)
    by_kind = {row.kind: row.worker_id for row in await rows(deployed)}
    assert by_kind["encode"] != by_kind["generate"]


async def test_people_take_turns_over_all_workers(deployed: Deployment) -> None:
    anns = [await deployed.ask(seed=seed, user_id="ann") for seed in range(20)]
    bobs = [await deployed.ask(seed=seed, user_id="bob") for seed in range(2)]
    for _ in range(2):
        deployed.worker(concurrency=2)
    await deployed.all_are(anns + bobs, "succeeded")
    order = [row.id for row in await rows(deployed)]
    assert max(order.index(job) for job in bobs) < 6, "not behind all of ann's"


async def test_a_canceled_job_stops_though_nobody_tells_its_worker(deployed: Deployment) -> None:
    deployed.worker(concurrency=1, step_s=1.0)
    await deployed.ready()
    job_id = await deployed.ask(steps=50)
    await deployed.all_are([job_id], "running")
    async with deployed.database.write() as store:  # as if Redis had lost the word
        job = await store.jobs.get(job_id)
        assert job is not None
        assert await store.jobs.cancel(job)
    after = await deployed.ask(steps=1)
    await deployed.until(lambda: deployed.are_now([after], "succeeded"), within_s=25)


async def test_a_silent_redis_is_told_and_makes_nothing_unready(
    deployed: Deployment, redis_store: Redis
) -> None:
    deployed.worker()
    await deployed.ready()
    redis_store.stop()
    try:
        answer = await deployed.client.get("/health/ready")
        assert (answer.status_code, answer.json()["status"]) == (200, "ready")
        assert answer.json()["impaired"].startswith("Redis does not answer")
        await deployed.all_are([await deployed.ask(seed=1)], "succeeded")
    finally:
        redis_store.start()
    assert "impaired" not in (await deployed.client.get("/health/ready")).json()


async def test_jobs_outlive_a_restart_of_the_database(
    deployed: Deployment, postgres: Postgres
) -> None:
    gate = deployed.log.with_name("gate")
    deployed.worker(concurrency=2, wait_for=gate)
    await deployed.ready()
    jobs = [await deployed.ask(seed=seed) for seed in range(4)]
    await deployed.all_are(jobs[:2], "running")
    postgres.stop()
    gate.touch()
    await asyncio.sleep(1)
    refused = await deployed.client.post("/generate", json={"prompt": "a fox"})
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
    postgres.start()
    await deployed.ready()
    await deployed.all_are([*jobs, await deployed.ask(seed=9)], "succeeded")
    async with deployed.database.read() as store:
        pictures = (await store.session.scalars(select(Image.job_id))).all()
    assert len(pictures) == len(set(pictures)) == 5
