"""`/metrics`: what happened is counted, nobody is named, and the settings say who may look."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.infra.queue.queue_state import QueueMetrics
from service.infra.sql.database import Database
from service.infra.sql.tables import WorkerRow, now
from tests.fake_runtime import FakeRuntime, engine_state
from tests.integration.conftest import Start
from tests.running_service import Service

pytestmark = pytest.mark.anyio

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Hanging:
    """A database that takes a question and never answers."""

    @asynccontextmanager
    async def read(self) -> Any:
        await asyncio.sleep(3600)
        yield


async def scrape(service: Service) -> tuple[Series, str]:
    answer = await service.bare().get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = [s for family in text_string_to_metric_families(answer.text) for s in family.samples]
    return {(s.name, frozenset(s.labels.items())): s.value for s in samples}, answer.text


def of(series: Series, name: str, **labels: str) -> float:
    """The sum over all series of this name that have these labels."""
    wanted = set(labels.items())
    return sum(value for (n, have), value in series.items() if n == name and wanted <= have)


async def test_a_picture_in_somebodys_taste_is_counted_in_every_phase(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ada-telling")
    for user_id in ("ada-telling", "nobody-telling"):
        await service.generate(client, prompt="a telling fox", user_id=user_id, n=2)
    series, text = await scrape(service)
    made = {"model": "fake-model-1", "adapter": "fake-adapter-1"}
    for phase, count in {"queue": 2, "denoise": 2, "decode": 2}.items():
        assert of(series, "ppd_job_phase_seconds_count", phase=phase, **made) == count
    assert of(series, "ppd_job_phase_seconds_count", phase="encode", model="fake-encoder-1") == 1
    assert of(series, "ppd_job_seconds_count", kind="generate", outcome="succeeded") == 2
    assert of(series, "ppd_pictures_total", personalized="yes", reason="", **made) == 2
    assert of(series, "ppd_pictures_total", personalized="no", reason="no_profile") == 2
    assert of(series, "ppd_embedding_cache_lookups_total", outcome="miss") == 1  # the encoding
    assert of(series, "ppd_embedding_cache_lookups_total", outcome="hit") == 1
    asked = {"method": "GET", "route": "/users/{user_id}/quiz", "status": "200"}
    assert of(series, "ppd_http_request_seconds_count", **asked) == 1
    assert of(series, "ppd_database_up") == 1
    assert "telling" not in text
    assert "default" not in text  # the tenant


async def test_what_waits_fails_and_is_canceled_is_counted(start: Start) -> None:
    runtime = FakeRuntime()
    service: Service = await start(runtime)
    client = service.client()
    runtime.gate.clear()
    jobs = [(await client.post("/generate", json={"prompt": "x"})).json()["id"] for _ in range(3)]
    await service.until(client, jobs[0], "running")
    async with client.stream("GET", f"/jobs/{jobs[0]}/events") as stream:
        lines = stream.aiter_lines()
        assert await anext(lines)
        series, _ = await scrape(service)
    assert of(series, "ppd_jobs", kind="generate", status="queued") == 2
    assert of(series, "ppd_jobs", kind="generate", status="running") == 1
    assert of(series, "ppd_oldest_queued_job_age_seconds", kind="generate") > 0
    assert of(series, "ppd_event_streams") == 1
    await client.delete(f"/jobs/{jobs[2]}")
    runtime.fail_with = ValueError("x")
    runtime.gate.set()
    await service.until(client, jobs[1], "failed")
    series, _ = await scrape(service)
    assert of(series, "ppd_job_seconds_count", kind="generate", outcome="canceled") == 1
    failed = {"outcome": "failed", "code": "model_error"}
    assert of(series, "ppd_job_seconds_count", kind="generate", **failed) == 1


async def test_the_running_batch_of_this_process_is_told_of(service: Service) -> None:
    series, _ = await scrape(service)
    assert not [name for name, _ in series if name.startswith("ppd_engine")]
    service.runtime.engine_state = engine_state(running_rows=3, passes=7)
    series, _ = await scrape(service)
    assert of(series, "ppd_engine_rows", state="running") == 3
    assert of(series, "ppd_engine_passes_total") == 7


async def test_workers_are_counted_by_kind_while_they_are_seen(service: Service) -> None:
    async with service.database.write() as store:
        store.session.add(WorkerRow(id="a", kinds=["encode", "generate"]))
        store.session.add(WorkerRow(id="b", kinds=["generate"], not_ready="loading"))
        lost = now().replace(year=2020)
        store.session.add(WorkerRow(id="c", kinds=["generate"], seen_at=lost))
    series, _ = await scrape(service)
    assert of(series, "ppd_workers", kind="generate", state="ready") == 1
    assert of(series, "ppd_workers", kind="generate", state="not_ready") == 1
    assert of(series, "ppd_workers", kind="encode", state="ready") == 1


async def test_a_database_that_hangs_does_not_hold_up_the_scrape(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.infra.queue.queue_state._PATIENCE_S", 0.05)
    services = service.parts.app.app.state.services  # type: ignore[attr-defined]
    hanging = QueueMetrics(Hanging())  # type: ignore[arg-type]
    service.parts.app.app.state.services = replace(services, queue_metrics=hanging)  # type: ignore[attr-defined]
    async with asyncio.timeout(30):
        series, _ = await scrape(service)
    assert of(series, "ppd_database_up") == 0
    assert not [name for name, _ in series if name == "ppd_jobs"]


async def test_many_scrapes_at_once_ask_the_database_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.infra.queue.queue_state._FRESH_S", 3600.0)
    looks = 0

    class Counting(Database):
        def read(self) -> Any:
            nonlocal looks
            looks += 1
            return super().read()

    database = Counting(service.settings.database)
    queue = QueueMetrics(database)
    await asyncio.gather(*(queue.registry() for _ in range(50)))
    await database.close()
    assert looks == 1


async def test_only_an_admins_key_opens_it_when_the_settings_say_so(start: Start) -> None:
    service: Service = await start(metrics="admin")
    assert (await service.bare().get("/metrics")).status_code == 401
    client_key = await service.new_key("shop")
    assert (await service.client(client_key).get("/metrics")).status_code == 404
    browser, _ = await service.session()
    assert (await browser.get("/metrics")).status_code == 404
    assert (await service.client().get("/metrics")).status_code == 200


async def test_it_can_be_switched_off(start: Start) -> None:
    service: Service = await start(metrics="off")
    assert (await service.client().get("/metrics")).status_code == 404
