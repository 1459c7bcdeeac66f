"""Spans name routes, not people; without the SDK the switch says what to install."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.trace import INVALID_SPAN, NoOpTracer, NoOpTracerProvider, Span, Tracer

from service.api.http import tracing
from service.settings import Settings
from service.wiring import embedded
from tests.fake_runtime import FakeRuntime

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Recorder(NoOpTracerProvider, NoOpTracer):
    """A provider that is its own tracer, and remembers what spans were begun with."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, dict[str, Any]]] = []

    def get_tracer(self, *args: Any, **kwargs: Any) -> Tracer:
        return self

    def start_span(self, name: str, *args: Any, **kwargs: Any) -> Span:
        self.begun.append((name, kwargs["attributes"]))
        return INVALID_SPAN


async def ask(app: FastAPI, path: str) -> int:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return (await client.get(path)).status_code


async def test_a_span_has_neither_path_nor_query() -> None:
    recorder = Recorder()
    app = FastAPI(telemetry=tracing.telemetry(recorder))

    @app.get("/users/{user_id}")
    async def user(user_id: str) -> str:
        return user_id

    assert await ask(app, "/users/ada?taste=warm") == 200
    name, attributes = recorder.begun[0]
    assert name == "GET"
    assert attributes["http.request.method"] == "GET"
    assert "ada" not in str(recorder.begun)
    assert "warm" not in str(recorder.begun)


async def test_without_a_provider_nothing_is_traced_even_where_the_process_has_one() -> None:
    config = tracing.telemetry(None)
    assert (config["tracing"], config["metrics"], config["logs"]) == (False, False, False)


def test_the_switch_without_the_sdk_says_what_to_install(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "_NEEDED", ("no_such_sdk.trace",))
    with pytest.raises(ValueError, match=r"pip install 'ppd\[tracing\]'"):
        embedded(Settings(data_dir=tmp_path, tracing=True), FakeRuntime())
