"""A whole life of the service at DEBUG, with telling values: none of them is in any output."""

import contextlib
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service.infra import logs
from tests.fake_runtime import FakeRuntime
from tests.integration.conftest import Start
from tests.running_service import Service

pytestmark = pytest.mark.anyio

USER, OTHER = "ada-telling", "bob-telling"
PROMPT, NEGATIVE, PROFILE = "a telling fox", "telling clutter", "Likes telling light."
KEY = "ppd_telling-telling-telling-telling-telling-tell"


@contextlib.contextmanager
def log_of(form: logs.LogFormat, secrets: list[str]) -> Iterator[None]:
    """The log of the process as `ppd serve` sets it up; undone at the end."""
    root, ours = logging.getLogger(), logging.getLogger(logs.OURS)
    before = root.handlers[:], root.level, ours.level
    logs.install(form, "DEBUG", secrets)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        ours.setLevel(before[2])


async def life(service: Service, runtime: Any) -> str:
    """Good requests, bad ones, a failing model, a failing store; gives the failed job's id."""
    client = service.client()
    await service.answer(client, USER)
    edited = {"text": PROFILE}
    await client.put(f"/users/{USER}/profile", json=edited, headers={"Prefer": "wait=30"})
    await service.generate(client, prompt=PROMPT, negative_prompt=NEGATIVE, user_id=USER)
    blend = [{"user_id": USER, "weight": 1}, {"user_id": OTHER, "weight": 2}]
    await service.generate(client, prompt=PROMPT, blend=blend)
    await client.post("/generate", json={"prompt": PROMPT, "user_id": USER, "telling": 1})
    await client.post("/generate", content=f'{{"prompt": "{PROMPT}",')
    await client.get(f"/users/{USER}/quiz?telling={PROMPT}", headers={"X-Request-ID": "mine-1"})
    await service.bare(headers={"Authorization": f"Bearer {KEY}"}).get("/pairs")
    runtime.fail_with = ValueError(f"cannot paint {PROMPT!r} for {USER}")
    failed = await service.generate(client, prompt=PROMPT, user_id=USER)
    assert failed["error"]["code"] == "model_error"
    runtime.fail_with = None

    async def full() -> bool:
        raise RuntimeError(f"no room for {PROMPT!r} of {USER}")

    service.parts.app.app.state.services.images.full = full  # type: ignore[attr-defined]
    with contextlib.suppress(httpx.RemoteProtocolError):
        answer = await client.post("/generate", json={"prompt": PROMPT, "user_id": USER})
        assert answer.status_code == 500
    await client.delete(f"/users/{USER}")
    return str(failed["id"])


@pytest.mark.parametrize("form", ["json", "text"])
async def test_no_line_tells_of_anybody(
    start: Start, capsys: pytest.CaptureFixture[str], form: logs.LogFormat
) -> None:
    runtime = FakeRuntime()
    with log_of(form, ["hunter2"]):
        service: Service = await start(runtime)
        job_id = await life(service, runtime)
        key = service.key
    written = "".join(capsys.readouterr())
    assert written.count("the job failed") == 1
    assert "Exception in ASGI application" in written
    for telling in ("telling", key, "hunter2"):
        assert telling not in written
    assert job_id in written
    assert "mine-1" in written
    if form == "json":
        lines = [json.loads(line) for line in written.splitlines()]
        assert all("request_id" in line for line in lines if line["logger"] == "ppd.http")
        assert all("request_id" in line for line in lines if "ASGI" in line["message"])
        failure = next(line for line in lines if line["message"] == "the job failed")
        assert (failure["job_id"], failure["attempt"]) == (job_id, 1)
        assert "ValueError: (message withheld)" in failure["exception"]
        asked = [line["route"] for line in lines if line.get("request_id") == "mine-1"]
        assert asked == ["/users/{user_id}/quiz"]
