"""What is not allowed is refused by a class of reason wherever it comes in, and is not stored."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.api_calls import code_of
from tests.fake_runtime import FakeRuntime
from tests.running_service import Service

pytestmark = pytest.mark.anyio

WORDS = "# ours\nbadword\n[violence]\nBlood Bath\n"


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text(WORDS)
    return path


def picture(colour: tuple[int, int, int]) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def is_red(url: str) -> bool:
    data = base64.b64decode(url.partition(",")[2])
    red, green, blue = Image.open(io.BytesIO(data)).convert("RGB").resize((1, 1)).getpixel((0, 0))
    return bool(red > 200 and green < 60 and blue < 60)


def flags(content: Any) -> list[str]:
    """As the fake service judges: red pictures are violence, and so is one word."""
    if isinstance(content, str):
        return ["violence/graphic"] if "gore" in content else []
    (part,) = content
    return ["sexual"] if is_red(part["image_url"]["url"]) else []


class FakeModerations:
    """Answers as OpenAI's moderations do; `asked` are the inputs. `broken`: answers nonsense."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.url = ""
        self.broken = False
        self.flags_all = False

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
        sent = json.loads(await reader.readexactly(length))
        assert sent["model"] == "judge-1"
        assert "authorization: bearer its-key" in head.lower()
        self.asked.append(sent["input"])
        named = ["hate"] if self.flags_all else flags(sent["input"])
        result = {"flagged": bool(named), "categories": dict.fromkeys(named, True)}
        body = b"{}" if self.broken else json.dumps({"results": [result]}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ")
        writer.write(f"{len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def moderations() -> AsyncIterator[FakeModerations]:
    fake = FakeModerations()
    server = await asyncio.start_server(fake.answer, "127.0.0.1", 0)
    fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/moderations"
    async with server:
        yield fake


def asking(fake: FakeModerations) -> dict[str, Any]:
    return {
        "moderation_url": fake.url,
        "moderation_key": "its-key",
        "moderation_model": "judge-1",
        "moderation_timeout_s": 5.0,
    }


async def audited(service: Service, what: str) -> list[tuple[str, str, dict[str, Any]]]:
    async with service.database.read() as store:
        entries = await store.audit.since(None, 0, 1000)
    return [(entry.who, entry.object, entry.detail) for entry in entries if entry.what == what]


async def test_a_refused_prompt_is_422_by_its_class_and_nothing_of_it_is_stored(
    start: Any, words: Path
) -> None:
    service = await start(moderation_words=words)
    client = service.client()
    for path in ("/generate", "/v1/images/generations"):
        answer = await client.post(path, json={"prompt": "a BLOOD-bath at sea"})
        assert answer.status_code == (422 if path == "/generate" else 400), answer.text
    told = (await client.post("/generate", json={"prompt": "blood bath", "user_id": "eve"})).json()
    assert told["code"] == "content_refused"
    assert told["errors"] == [{"pointer": "/prompt", "message": "refused as violence"}]
    assert (await client.get("/jobs")).json()["results"] == []
    assert (await client.get("/users/eve/preferences")).status_code == 404
    refused = await audited(service, "content.refused")
    own_key = f"key:{await service.id_of_key(service.key)}"
    assert [who for who, _, _ in refused] == [own_key] * 3
    assert refused[2][1] == f"request:{told['request_id']}"
    assert refused[2][2] == {"place": "prompt", "reason": "violence"}
    assert await service.generate(client, prompt="a fox")


async def test_a_taste_in_ones_own_words_and_a_caption_are_judged_as_well(
    start: Any, words: Path
) -> None:
    service = await start(moderation_words=words)
    client = service.client()
    answer = await client.put("/users/eve/profile", json={"text": "I like bádword."})
    assert (answer.status_code, code_of(answer)) == (422, "content_refused")
    pair = {"caption": "a badword", "images": [picture((1, 2, 3))] * 2, "preferred": 0}
    answer = await client.post("/users/eve/preferences", json={"choices": [pair]})
    assert answer.json()["errors"][0]["pointer"] == "/choices/0/caption"
    assert (await client.get("/users/eve/preferences")).status_code == 404


async def test_a_service_over_http_judges_uploads_which_are_not_stored(start: Any) -> None:
    async with moderations() as fake:
        service = await start(**asking(fake))
        client = service.client()
        own = [picture((250, 10, 10)), picture((10, 200, 10))]
        pair = {"caption": "mine", "images": own, "preferred": 0}
        answer = await client.post("/users/eve/preferences", json={"choices": [pair]})
        assert answer.status_code == 422
        at = {"pointer": "/choices/0/images/0", "message": "refused as sexual"}
        assert answer.json()["errors"] == [at]
        assert list((service.settings.data_dir / "images").rglob("*.png")) == []
        pair["images"] = own[1:] * 2
        answer = await client.post("/users/eve/preferences", json={"choices": [pair]})
        assert answer.status_code == 202, answer.text


async def test_a_refused_picture_is_neither_stored_nor_shown_while_it_is_made(start: Any) -> None:
    async with moderations() as fake:
        runtime = FakeRuntime()
        runtime.preview_every = 1
        service = await start(runtime, moderation_places="picture", **asking(fake))
        client = service.client()
        fake.flags_all = True
        job = await service.generate(client, prompt="gore")  # prompts are not judged here
        assert (job["status"], job["error"]["code"]) == ("failed", "content_refused")
        assert job["error"]["detail"].endswith("refused as hate.")
        assert list((service.settings.data_dir / "images").rglob("*.png")) == []
        events = (await client.get(f"/jobs/{job['id']}/events")).text
        assert "preview" not in events
        refused = await audited(service, "content.refused")
        assert refused == [("service", f"job:{job['id']}", {"place": "picture", "reason": "hate"})]
        answer = await client.post("/v1/images/generations", json={"prompt": "gore"})
        assert (answer.status_code, code_of(answer)) == (400, "moderation_blocked")
        fake.flags_all = False
        assert (await service.generate(client, seed=8))["status"] == "succeeded"


async def test_where_nobody_can_tell_nothing_is_accepted(start: Any) -> None:
    async with moderations() as fake:
        service = await start(**asking(fake))
        client = service.client()
        fake.broken = True
        answer = await client.post("/generate", json={"prompt": "a fox"})
        assert (answer.status_code, code_of(answer)) == (503, "moderation_unavailable")
        assert answer.headers["retry-after"]
        fake.broken = False
        assert (await service.generate(client))["status"] == "succeeded"
    answer = await client.post("/generate", json={"prompt": "a fox"})
    assert (answer.status_code, code_of(answer)) == (503, "moderation_unavailable")


async def test_without_a_judge_everything_is_allowed(service: Service) -> None:
    job = await service.generate(service.client(), prompt="badword blood bath")
    assert job["status"] == "succeeded"
