"""Live touches nothing; ready names everything that is missing, whatever hangs."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tests.integration.test_metrics import Hanging
from tests.running_service import Service

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


async def test_ready_names_all_that_is_missing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.health._PATIENCE_S", 0.05)
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
