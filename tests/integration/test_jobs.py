"""Jobs end exactly once: over cancels, restarts, crashes and late workers."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text, update

from service.infra.sql.tables import Job, now
from tests.fake_runtime import FakeRuntime
from tests.integration.conftest import Start
from tests.running_service import Service, stop

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]


async def events(
    client: httpx.AsyncClient, job_id: str, last: str | None = None, limit: int = 1000
) -> list[dict[str, Any]]:
    """The events of a job's stream until it ends or `limit` came."""
    headers = {"Last-Event-ID": last} if last is not None else {}
    seen: list[dict[str, Any]] = []
    async with client.stream("GET", f"/jobs/{job_id}/events", headers=headers) as stream:
        assert stream.status_code == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        event: dict[str, Any] = {}
        async for line in stream.aiter_lines():
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                event[name] = json.loads(value) if name == "data" else value
            elif event:
                seen.append(event)
                event = {}
                if len(seen) == limit:
                    return seen
    return seen


async def queue(client: httpx.AsyncClient, **body: object) -> str:
    asked = {"prompt": "a fox", "steps": 4, "seed": 1, "fresh": True, **body}
    answer = await client.post("/generate", json=asked)
    return str(answer.json()["id"])


async def test_the_stream_tells_every_step_and_the_end(service: Service) -> None:
    client = service.client()
    service.runtime.gate.clear()
    job_id = await queue(client)
    following = asyncio.create_task(events(client, job_id))
    await asyncio.sleep(0.1)
    service.runtime.gate.set()
    seen = await following
    steps = [(e["data"]["step"], e["data"]["steps"]) for e in seen if e["event"] == "step"]
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert seen[0]["event"] == "status"
    assert "retry" in seen[0]
    assert seen[-1]["data"]["status"] == "succeeded"
    assert seen[-1]["data"]["result"]["images"][0]["seed"] == 1
    ids = [int(e["id"]) for e in seen]
    assert ids == sorted(set(ids))
    assert (await client.get(f"/jobs/{job_id}")).json()["seq"] == ids[-1]


async def test_the_stream_shows_pictures_while_they_are_made_and_remembers_none(
    service: Service,
) -> None:
    client, stranger = service.client(), service.client(await service.new_key("shop"))
    browser, _ = await service.session()
    service.runtime.gate.clear()
    service.runtime.preview_every, service.runtime.step_s = 2, 0.3
    job_id = await queue(client, n=2)
    for other in (stranger, browser):
        assert (await other.get(f"/jobs/{job_id}/events")).status_code == 404
    following = asyncio.create_task(events(client, job_id))
    await asyncio.sleep(0.1)
    service.runtime.gate.set()
    seen = await following
    shown = [e for e in seen if e["event"] == "preview"]
    assert {(e["data"]["index"], e["data"]["step"]) for e in shown} >= {(0, 2), (1, 2)}
    for event in shown:
        assert event["data"].keys() == {"index", "step", "steps", "image"}
        assert event["data"]["image"].startswith("data:image/jpeg;base64,")
        assert len(event["data"]["image"]) <= 10_240
        assert "id" not in event, "whoever comes back continues after the last step"
    again = await events(client, job_id, last=seen[1]["id"])
    job = (await client.get(f"/jobs/{job_id}")).text
    for kept in (json.dumps(again), job, (await client.get("/metrics")).text):
        assert "data:image" not in kept
    async with service.database.read() as store:
        rows = (await store.session.execute(text("SELECT * FROM jobs"))).all()
    assert "data:image" not in str(rows)


async def test_a_stream_resumes_after_the_last_event_that_was_seen(service: Service) -> None:
    client = service.client()
    job_id = await queue(client)
    whole = await events(client, job_id)
    await service.until(client, job_id, "succeeded")
    assert [e["event"] for e in await events(client, job_id)] == ["status"]
    service.runtime.gate.clear()
    job_id = await queue(client)
    await service.until(client, job_id, "running")
    begun = await events(client, job_id, limit=1)
    service.runtime.gate.set()
    rest = await events(client, job_id, last=begun[-1]["id"])
    assert rest[-1]["data"]["status"] == "succeeded"
    assert int(rest[0]["id"]) > int(begun[-1]["id"]) or rest[0]["data"]["status"] == "succeeded"
    assert whole[-1]["data"]["status"] == "succeeded"


async def test_strange_last_event_ids_get_a_snapshot_and_are_never_stuck(service: Service) -> None:
    client = service.client()
    service.runtime.gate.clear()
    job_id = await queue(client)
    await service.until(client, job_id, "running")
    for last in ("0", "-1", "99999", "999999999999999999999", "abc", "", "1.5"):
        (first,) = await events(client, job_id, last=last, limit=1)
        assert first["data"]["status"] == "running", last
    service.runtime.gate.set()
    await service.until(client, job_id, "succeeded")
    for last in ("5", "99999", "nonsense"):
        seen = await events(client, job_id, last=last)
        assert seen[-1]["data"]["status"] == "succeeded"


async def test_a_queued_job_is_canceled_at_once(service: Service) -> None:
    client = service.client()
    service.runtime.gate.clear()
    running, waiting = await queue(client), await queue(client)
    await service.until(client, running, "running")
    following = asyncio.create_task(events(client, waiting))
    await asyncio.sleep(0.1)
    answer = await client.delete(f"/jobs/{waiting}")
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    assert (await following)[-1]["data"]["status"] == "canceled"
    service.runtime.gate.set()
    await service.until(client, running, "succeeded")
    assert (await client.get(f"/jobs/{waiting}")).json()["status"] == "canceled"


async def test_a_running_job_stops_and_publishes_nothing(service: Service) -> None:
    client = service.client()
    service.runtime.gate.clear()
    job_id = await queue(client, user_id="ann")
    await service.until(client, job_id, "running")
    answer = await client.delete(f"/jobs/{job_id}")
    assert answer.json()["status"] == "canceled"
    # The gate stays shut: only the cancel can have freed the worker for this one.
    again = await queue(client)
    await service.until(client, again, "running")
    service.runtime.gate.set()
    await service.until(client, again, "succeeded")
    assert (await client.get(f"/jobs/{job_id}")).json()["status"] == "canceled"
    assert (await client.get("/users/ann/images")).json()["results"] == []


async def test_cancelling_what_has_ended_changes_nothing(service: Service) -> None:
    client = service.client()
    job = await service.generate(client)
    for _ in range(2):
        answer = await client.delete(f"/jobs/{job['id']}")
        assert answer.status_code == 200
        assert answer.json() == job


async def test_a_restart_resumes_what_was_not_finished(start: Start, tmp_path: Path) -> None:
    service: Service = await start(data_dir=tmp_path / "d")
    client = service.client()
    await service.answer(client, "ann")
    service.runtime.gate.clear()
    running = await queue(client, user_id="ann")
    waiting = await queue(client, seed=2)
    await service.until(client, running, "running")
    before = (await client.get(f"/jobs/{running}")).json()["seq"]
    service.server.should_exit = True
    await service.serving
    again: Service = await start(data_dir=tmp_path / "d")
    client = again.client()
    job = await again.until(client, running, "succeeded")
    assert job["result"]["personalization_applied"] is True
    assert job["seq"] > before
    assert len(job["result"]["images"]) == 1
    await again.until(client, waiting, "succeeded")
    seen = await events(client, running, last=str(before))
    assert seen[-1]["data"]["status"] == "succeeded"


async def test_a_late_worker_cannot_publish_over_a_newer_attempt(service: Service) -> None:
    client = service.client()
    service.runtime.gate.clear()
    job_id = await queue(client)
    await service.until(client, job_id, "running")
    async with service.database.write() as store:
        await store.session.execute(
            update(Job).where(Job.id == job_id).values(attempt=Job.attempt + 1)
        )
    service.runtime.gate.set()
    await service.generate(client)  # the same worker has come past the late job
    async with service.database.read() as store:
        job = await store.jobs.get(job_id)
        assert job is not None
        assert (job.status, job.result) == ("running", None)
    files = list((service.settings.data_dir / "images").rglob("*.png"))
    assert len(files) == 1


async def test_a_job_that_never_finishes_fails_after_three_attempts(
    start: Start, tmp_path: Path
) -> None:
    service: Service = await start(data_dir=tmp_path / "d")
    job_id = (await service.generate(service.client()))["id"]
    async with service.database.write() as store:
        await store.session.execute(
            update(Job).values(status="running", losses=2, result=None, finished_at=None)
        )
    await stop(service)
    again: Service = await start(data_dir=tmp_path / "d")
    job = (await again.client().get(f"/jobs/{job_id}")).json()
    assert (job["status"], job["error"]["code"]) == ("failed", "worker_crash")


async def test_a_job_whose_lease_ended_without_a_worker_is_taken_up(service: Service) -> None:
    client = service.client()
    first = await service.generate(client)
    async with service.database.write() as store:
        await store.session.execute(
            update(Job).values(status="running", lease_until=now() - timedelta(seconds=1))
        )
        await store.session.execute(text("DELETE FROM images"))
    await service.parts.worker._sweep.once()
    job = await service.until(client, first["id"], "succeeded")
    assert job["seq"] > first["seq"]
    assert service.runtime.generated[0] == service.runtime.generated[1]


async def test_what_waited_too_long_expires(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.worker.embedded._SWEEP_EVERY_S", 0.2)
    runtime = FakeRuntime()
    runtime.load_gate.clear()
    service: Service = await start(runtime, tmp_path / "d", ready=False)
    client = service.client()
    job_id = await queue(client)
    async with service.database.write() as store:
        await store.session.execute(update(Job).values(expires_at=now() - timedelta(seconds=1)))
    runtime.load_gate.set()
    job = await service.until(client, job_id, "expired")
    assert job["error"]["code"] == "expired"
    assert service.runtime.generated == []


async def test_what_waited_too_long_expires_while_the_model_still_loads(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.worker.embedded._SWEEP_EVERY_S", 0.02)
    runtime = FakeRuntime()
    runtime.load_gate.clear()
    service: Service = await start(runtime, ready=False, job_expiry_s=0.1)
    client = service.client()
    job = await service.until(client, await queue(client), "expired")
    assert job["error"]["code"] == "expired"
    assert await service.parts.worker.why_not_ready() == "the model is being loaded"


async def test_of_the_jobs_on_their_last_chance_one_runs_at_a_time(start: Start) -> None:
    class Two(FakeRuntime):
        jobs_at_once = 2
        inside = most = 0

        def generate(self, *args, **whose):  # type: ignore[no-untyped-def]
            self.inside += 1
            self.most = max(self.most, self.inside)
            try:
                return super().generate(*args, **whose)
            finally:
                self.inside -= 1

    runtime = Two(step_s=0.01)
    runtime.load_gate.clear()
    service: Service = await start(runtime, ready=False)
    client = service.client()
    jobs = [await queue(client) for _ in range(3)]
    async with service.database.write() as store:
        await store.session.execute(update(Job).values(losses=2))
    runtime.load_gate.set()
    for job_id in jobs:
        await service.until(client, job_id, "succeeded")
    assert runtime.most == 1
    runtime.gate.clear()
    others = [await queue(client) for _ in range(3)]
    for job_id in others[:2]:
        await service.until(client, job_id, "running")
    runtime.gate.set()
    for job_id in others:
        await service.until(client, job_id, "succeeded")
    assert runtime.most == 2


async def test_without_a_model_jobs_end_with_that_reason(start: Start, tmp_path: Path) -> None:
    class Broken(FakeRuntime):
        def load(self):  # type: ignore[no-untyped-def]
            super().load()
            raise FileNotFoundError("/weights/stage_c.safetensors is missing")

    runtime = Broken()
    runtime.load_gate.clear()
    service: Service = await start(runtime, tmp_path / "d", ready=False)
    client = service.client()
    waiting = await queue(client)
    pairs = (await client.get("/users/ann/quiz")).json()["pairs"]
    body = {"choices": [{"pair_id": pair["pair_id"], "preferred": 0} for pair in pairs]}
    link = (await client.post("/users/ann/preferences", json=body)).json()["links"]["job"]
    runtime.load_gate.set()
    for job_id in (waiting, link.split("/")[-1], await queue(client)):
        seen = await events(client, job_id)
        assert seen[-1]["data"]["status"] == "failed"
        assert seen[-1]["data"]["error"]["code"] == "worker_not_started"
    held = (await client.get("/users/ann/preferences")).json()
    assert (held["status"], held["answered"]) == ("failed", 4)
    assert "stage_c.safetensors" in (await client.get("/health/ready")).json()["reason"]
    await stop(service)
    again: Service = await start(data_dir=tmp_path / "d")
    state = await again.client().post(
        "/users/ann/preferences",
        json={"choices": body["choices"][:1]},
        headers={"Prefer": "wait=60"},
    )
    assert state.json()["status"] == "ready"


async def test_another_encoder_reads_everybody_anew_and_says_so(
    start: Start, tmp_path: Path
) -> None:
    service: Service = await start(data_dir=tmp_path / "d")
    client = service.client()
    await service.answer(client, "ann")
    service.runtime.gate.clear()
    pinned = await queue(client, user_id="ann")
    await service.until(client, pinned, "running")
    service.server.should_exit = True
    await service.serving
    newer = FakeRuntime(encoder_version="fake-encoder-2")
    again: Service = await start(newer, tmp_path / "d")
    client = again.client()
    job = await again.until(client, pinned, "succeeded")
    result = job["result"]
    assert result["encoder_version"] == "fake-encoder-2"
    assert (result["profile_version"], result["reason"]) == (2, "reencoded")
    assert result["personalization_applied"] is True
    versions = (await client.get("/users/ann/preferences")).json()["profiles"]
    assert [v["source"] for v in versions] == ["generated", "reencoded"]
    assert versions[0]["text"] == versions[1]["text"]
    assert len(newer.encoded) == 1


async def test_the_loop_stays_quick_while_the_model_works(start: Start) -> None:
    service: Service = await start(FakeRuntime(step_s=0.05))
    client = service.client()
    job_id = await queue(client, steps=20)
    await service.until(client, job_id, "running")
    answers = [await client.get("/health/live") for _ in range(10)]
    assert all(answer.status_code == 200 for answer in answers)
    assert (await client.get(f"/jobs/{job_id}")).json()["status"] == "running"


@pytest.mark.sqlite_only
async def test_files_without_a_row_are_swept_at_the_start(start: Start, tmp_path: Path) -> None:
    service: Service = await start(data_dir=tmp_path / "d")
    url = (await service.generate(service.client()))["result"]["images"][0]["url"]
    await stop(service)
    orphan = tmp_path / "d" / "images" / "0123" / "1-0.png"
    orphan.parent.mkdir()
    orphan.write_bytes(b"left by a crash")
    again: Service = await start(data_dir=tmp_path / "d")
    assert not orphan.parent.exists()
    assert (await again.client().get(url)).status_code == 200
    async with again.database.read() as store:
        assert await store.session.scalar(text("PRAGMA foreign_keys")) == 1


async def test_the_end_of_a_job_is_told_although_every_event_of_it_was_lost(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = service.client()
    service.runtime.gate.clear()
    job_id = await queue(client)
    monkeypatch.setattr(type(service.parts.events), "publish", lambda *_: None)
    following = asyncio.create_task(events(client, job_id))
    waiting = asyncio.create_task(service.generate(client, seed=9))
    await service.until(client, job_id, "running")
    service.runtime.gate.set()
    async with asyncio.timeout(20):
        seen = await following
        assert (await waiting)["status"] == "succeeded"
    assert {event["event"] for event in seen} == {"status"}
    assert seen[-1]["data"]["status"] == "succeeded"
    assert seen[-1]["data"]["result"]["images"][0]["seed"] == 1
    assert [int(event["id"]) for event in seen] == sorted({int(event["id"]) for event in seen})


async def test_a_look_at_the_row_between_events_repeats_and_loses_none(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.http.following.LOOK_EVERY_S", 0.02)
    client = service.client()
    service.runtime.gate.clear()
    job_id = await queue(client, steps=6)
    following = asyncio.create_task(events(client, job_id))
    await service.until(client, job_id, "running")
    await asyncio.sleep(0.2)
    service.runtime.step_s = 0.05
    service.runtime.gate.set()
    async with asyncio.timeout(20):
        seen = await following
    assert [e["data"]["step"] for e in seen if e["event"] == "step"] == [1, 2, 3, 4, 5, 6]
    states = [e["data"]["status"] for e in seen if e["event"] == "status"]
    assert states in (["queued", "running", "succeeded"], ["running", "succeeded"])


async def test_a_stream_whose_job_was_erased_ends_although_nobody_told_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(service.parts.events), "forget", lambda *_: None)
    client = service.client()
    service.runtime.gate.clear()
    job_id = await queue(client, user_id="ann")
    following = asyncio.create_task(events(client, job_id))
    await service.until(client, job_id, "running")
    assert (await client.delete("/users/ann")).status_code == 200
    async with asyncio.timeout(20):
        seen = await following
    assert "succeeded" not in {event["data"].get("status") for event in seen}
