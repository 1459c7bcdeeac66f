"""The service starts on an empty folder, says when it is ready, and shows the pool."""

import stat

import pytest

from tests.fake_runtime import FakeRuntime
from tests.integration.conftest import Start
from tests.running_service import POOL_SIZE, Service

pytestmark = pytest.mark.anyio


async def test_live_answers_while_the_model_loads_and_ready_says_why_not(start: Start) -> None:
    runtime = FakeRuntime()
    runtime.load_gate.clear()
    service: Service = await start(runtime, ready=False)
    client = service.bare()
    assert (await client.get("/health/live")).json() == {"status": "ok"}
    waiting = await client.get("/health/ready")
    assert waiting.status_code == 503
    assert waiting.json()["reason"] == "the model is being loaded"
    runtime.load_gate.set()
    while (await client.get("/health/ready")).status_code != 200:
        pass


async def test_first_start_writes_a_private_key_that_works(service: Service) -> None:
    path = service.settings.data_dir / "api-key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (await service.client().get("/pairs")).status_code == 200
    assert service.key.encode() not in (service.settings.data_dir / "ppd.db").read_bytes()


async def test_pairs_come_page_by_page_and_their_pictures_are_public(service: Service) -> None:
    client = service.client()
    seen, cursor = [], None
    while True:
        params = {"limit": 5} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/pairs", params=params)).json()
        seen += page["results"]
        cursor = page["next"]
        if cursor is None:
            break
    assert len({pair["pair_id"] for pair in seen}) == len(seen) == POOL_SIZE
    picture = await service.bare().get(seen[0]["images"][0]["url"])
    assert picture.status_code == 200
    assert picture.headers["content-type"] == "image/webp"
    assert "public" in picture.headers["cache-control"]


async def test_a_cursor_of_ones_own_making_is_refused(service: Service) -> None:
    client = service.client()
    for cursor in ("x", "W10", "WyJhIl0", "bnVsbA", "é", "====", "WzFd" * 60):
        answer = await client.get("/pairs", params={"cursor": cursor})
        assert answer.status_code == 422, cursor
        assert answer.json()["code"] == "invalid_request"


async def test_a_model_that_does_not_load_is_named_and_the_rest_answers(start: Start) -> None:
    class Broken(FakeRuntime):
        def load(self):  # type: ignore[no-untyped-def]
            raise FileNotFoundError("/weights/stage_c.safetensors is missing")

    service: Service = await start(Broken(), ready=False)
    answer = await service.bare().get("/health/ready")
    while "being loaded" in answer.json()["reason"]:
        answer = await service.bare().get("/health/ready")
    assert answer.status_code == 503
    assert "/weights/stage_c.safetensors" in answer.json()["reason"]
    assert (await service.client().get("/pairs")).status_code == 200
