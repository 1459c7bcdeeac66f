"""Live touches nothing; ready names everything that is missing, whatever hangs."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tests.fake_runtime import FakeRuntime
from tests.integration.conftest import Start
from tests.integration.test_metrics import Hanging
from tests.running_service import Service, stop

pytestmark = pytest.mark.anyio


class Nobody:
    async def why_not_ready(self) -> str | None:
        return "no worker was seen"


class NoStore:
    async def full(self) -> bool:
        raise ConnectionRefusedError("bucket")


def broken(service: Service, **parts: Any) -> None:
    state = service.parts.app.app.state  # type: ignore[attr-defined]
    state.services = replace(state.services, **parts)


async def test_live_answers_while_the_database_hangs(service: Service) -> None:
    broken(service, database=Hanging())
    async with asyncio.timeout(30):
        assert (await service.bare().get("/health/live")).json() == {"status": "ok"}


async def test_a_model_that_broke_takes_no_more_jobs_and_fails_none(start: Start) -> None:
    service: Service = await start(FakeRuntime())
    client = service.client()
    service.runtime.gate.clear()
    running = (await client.post("/generate", json={"prompt": "a"})).json()["id"]
    await asyncio.to_thread(service.runtime.entered.wait, 60)
    service.runtime.broken_by = "CUDA error"
    later = (await client.post("/generate", json={"prompt": "b"})).json()["id"]
    answer = await client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["the model has stopped, restart the service: CUDA error"]
    service.runtime.gate.set()
    await service.until(client, running, "succeeded")
    await asyncio.sleep(0.2)
    assert (await client.get(f"/jobs/{later}")).json()["status"] == "queued"
    await stop(service)
    service = await start(FakeRuntime())
    await service.until(service.client(), later, "succeeded")


async def test_what_a_model_that_broke_had_in_hand_runs_again(start: Start) -> None:
    class Breaking(FakeRuntime):
        def generate(self, *given: Any, **whose: Any) -> Any:
            self.broken_by = "CUDA error"
            return super().generate(*given, **whose)

    service: Service = await start(Breaking())
    job_id = (await service.client().post("/generate", json={"prompt": "a"})).json()["id"]
    async with asyncio.timeout(30):
        while (await service.bare().get("/health/ready")).status_code == 200:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert (await service.client().get(f"/jobs/{job_id}")).json()["status"] == "running"
    await stop(service)
    service = await start(FakeRuntime())
    await service.until(service.client(), job_id, "succeeded")


async def test_ready_names_all_that_is_missing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.routes.health._PATIENCE_S", 0.05)
    broken(service, database=Hanging(), worker=Nobody(), images=NoStore())
    async with asyncio.timeout(30):
        answer = await service.bare().get("/health/ready")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "not ready",
        "reason": "no worker was seen",
        "reasons": [
            "no worker was seen",
            "the database does not answer: TimeoutError",
            "the image store does not answer: ConnectionRefusedError",
        ],
    }
