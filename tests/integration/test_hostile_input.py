"""What somebody sends who wants the service to fail, to stall, to forget or to tell."""

import asyncio
import base64
import io
import json
import struct
import time
from typing import Any

import httpx
import pytest
from PIL import Image
from sqlalchemy import text

from tests.integration.conftest import Start
from tests.running_service import Service

pytestmark = pytest.mark.anyio

MARK = "zqxj-marker"


def is_problem(answer: httpx.Response, status: int) -> bool:
    return (
        answer.status_code == status
        and answer.headers["content-type"] == "application/problem+json"
        and answer.json()["request_id"] == answer.headers["x-request-id"]
    )


def cursor(document: bytes) -> str:
    return base64.urlsafe_b64encode(document).rstrip(b"=").decode()


def choice(*pictures: bytes, caption: str = "mine") -> dict[str, Any]:
    images = [base64.b64encode(picture).decode() for picture in pictures]
    return {"choices": [{"caption": caption, "images": images, "preferred": 0}]}


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(buffer, format="PNG")
    return buffer.getvalue()


def jpeg_of_many_scans(scans: int, side_px: int = 64) -> bytes:
    """A progressive JPEG that says the same about all its blocks again and again."""

    def segment(marker: int, data: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data

    one_code = bytes([1] + [0] * 15)  # a table of one code, which is the bit 0
    blocks = (side_px // 8) ** 2
    return (
        b"\xff\xd8"
        + segment(0xDB, b"\0" + b"\1" * 64)
        + segment(0xC2, struct.pack(">BHHB", 8, side_px, side_px, 1) + bytes([1, 0x11, 0]))
        + segment(0xC4, b"\x00" + one_code + b"\x00")
        + segment(0xC4, b"\x10" + one_code + b"\xe0")
        + segment(0xDA, bytes([1, 1, 0, 0, 0, 0]))
        + b"\0" * (blocks // 8)
        + (segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + b"\x3f\xfd") * scans
        + b"\xff\xd9"
    )


async def test_an_origin_that_is_no_address_is_another_site(service: Service) -> None:
    browser, _ = await service.session()
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    client = service.bare(headers={"Cookie": cookies})
    for origin in ("http://[", "http://[::1", "http://a]b", "null", ""):
        answer = await client.post("/generate", json={"prompt": "a"}, headers={"Origin": origin})
        assert is_problem(answer, 403), origin


async def test_a_gallery_cursor_of_ones_own_making_is_refused(service: Service) -> None:
    client = service.client()
    await service.generate(client, user_id="ann", n=2)
    for document in (
        b'["0001-01-01T00:00:00+14:00","x"]',
        b'["9999-12-31T23:59:59-14:00","x"]',
        b'["2026-01-01T00:00:00","x"]',
        b'["2026-01-01T00:00:00+00:00","\\ud800"]',
        b'["2026-01-01T00:00:00+00:00",""]',
    ):
        answer = await client.get("/users/ann/images", params={"cursor": cursor(document)})
        assert is_problem(answer, 422), document
    first = (await client.get("/users/ann/images?limit=1")).json()
    second = (await client.get(f"/users/ann/images?limit=1&cursor={first['next']}")).json()
    assert first["results"] != second["results"]
    assert len(second["results"]) == 1


async def test_a_range_that_cannot_be_is_a_problem_too(service: Service) -> None:
    client = service.bare()
    for path in ("/pairs/images/pair-00-a.webp", "/static/js/shared/dom.js"):
        for wanted, status in (("bytes=a", 400), ("bytes=5-2", 400), ("bytes=9999999-", 416)):
            answer = await client.get(path, headers={"Range": wanted})
            assert is_problem(answer, status), (path, wanted)
        assert answer.headers["content-range"].startswith("bytes */") or path.startswith("/static")
        assert (await client.get(path, headers={"Range": "bytes=0-3"})).status_code == 206


async def test_millions_of_values_are_refused_before_they_are_parsed(service: Service) -> None:
    client = service.client()
    for value in (b"[]", b"{}", b"0", b'""'):
        body = b'{"prompt":[' + (value + b",") * 1_500_000 + value + b"]}"
        started = time.process_time()
        answer = await client.post(
            "/generate", content=body, headers={"Content-Type": "application/json"}
        )
        assert is_problem(answer, 400), value
        assert time.process_time() - started < 0.5
    long_type = "application/json;" + '";' * 4000
    answer = await client.post(
        "/generate", content=b'{"prompt":"a"}', headers={"Content-Type": long_type}
    )
    assert is_problem(answer, 415)


async def test_a_jpeg_of_endless_scans_is_refused(service: Service) -> None:
    client = service.client()
    plain = await client.post("/users/ann/preferences", json=choice(jpeg_of_many_scans(5), png()))
    assert plain.status_code == 202
    many = await client.post("/users/ann/preferences", json=choice(png(), jpeg_of_many_scans(65)))
    assert is_problem(many, 422)
    assert "scans" in many.json()["errors"][0]["message"]


async def test_a_database_that_fails_is_503_and_tells_nothing(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    client = service.client()
    async with service.database.write() as store:
        await store.session.execute(text("ALTER TABLE choices RENAME TO gone"))
    answer = await client.post(
        "/users/ann/preferences", json=choice(png(), png(), caption=f"a {MARK}")
    )
    assert is_problem(answer, 503)
    assert answer.json()["code"] == "database"
    assert answer.headers["retry-after"] == "5"
    assert "no such table" in caplog.text
    assert MARK not in caplog.text
    assert MARK not in answer.text
    assert list((service.settings.data_dir / "images").rglob("*.png")) == []


async def test_two_hundred_at_once_are_answered(start: Start) -> None:
    service: Service = await start(max_queued_jobs=500, max_queued_jobs_per_caller=500)
    limits = httpx.Limits(max_connections=200)
    client = service.client(limits=limits)
    service.runtime.gate.clear()
    body = {"prompt": "a", "steps": 1, "user_id": "ann"}
    answers = await asyncio.gather(
        *(client.post("/generate", json=body, timeout=60) for _ in range(100)),
        *(client.get("/users/ann/quiz", timeout=60) for _ in range(100)),
    )
    assert {answer.status_code for answer in answers} == {200, 202}


async def test_a_client_that_leaves_while_it_sends_is_no_fault_of_ours(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    port = int(service.url.rsplit(":", 1)[1])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        "POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {service.key}\r\nContent-Length: 1000\r\n\r\n"
    )
    writer.write(head.encode() + json.dumps({"prompt": MARK}).encode())
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.2)
    assert (await service.client().get("/health/live")).status_code == 200
    assert "Exception in ASGI" not in caplog.text


async def test_other_people_of_the_machine_read_nothing(service: Service) -> None:
    folder = service.settings.data_dir
    await service.generate(service.client())
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"ppd.db", "ppd.db-wal", "api-key", "session-secret"} <= {path.name for path in files}
    for path in files:
        assert path.name == "lock" or path.stat().st_mode & 0o077 == 0, path
