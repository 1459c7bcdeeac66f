"""Clients as they should not be. None of them may be answered 5xx, or be let do anything."""

import asyncio
import base64
import contextlib
import io
import random
import socket
import struct

import httpx
from PIL import Image

from tests.integration.test_raw_bytes import BODIES, raw_requests
from tests.soak.book import AWAY, Book, comes_again

_IDLE = 40
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends RST."""


async def bad_bodies(http: httpx.AsyncClient, book: Book, stop: asyncio.Event) -> None:
    """What is no body, to the routes that read one."""
    chance = random.Random(1)
    paths = ("/generate", "/users/nobody/preferences", "/v1/images/generations")
    while not stop.is_set():
        name, content = chance.choice(list(BODIES.items()))
        path = chance.choice(paths)
        headers = {"Content-Type": "application/json"}
        await _refused(http, book, "POST", path, name, content=content, headers=headers)
        await asyncio.sleep(0.2)


async def huge_pixels(http: httpx.AsyncClient, book: Book, stop: asyncio.Event) -> None:
    """Small files of many pixels, and files that are none."""
    flat = io.BytesIO()
    Image.new("P", (13_000, 13_000)).save(flat, "png")
    cases = {"13,000 px": flat.getvalue(), "cut": flat.getvalue()[:200], "html": b"<html></html>"}
    while not stop.is_set():
        for name, file in cases.items():
            images = [base64.b64encode(file).decode()] * 2
            choice = {"caption": "a", "images": images, "preferred": 0}
            body = {"choices": [choice]}
            await _refused(http, book, "POST", "/users/nobody/preferences", name, json=body)
            await asyncio.sleep(1)


async def wire(address: tuple[str, int], key: str, book: Book, stop: asyncio.Event) -> None:
    """Requests that are none, and connections that are cut in the middle of one."""
    raw = list(raw_requests(key).items())
    while not stop.is_set():
        for name, sent in raw:
            if stop.is_set():
                return
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(5):
                    reader, writer = await asyncio.open_connection(*address)
                    try:
                        writer.write(sent[: len(sent) // 2] if book.done["cut"] % 2 else sent)
                        await writer.drain()
                        first = await asyncio.wait_for(reader.read(64), 1)
                        status = first[9:12].decode(errors="replace")
                        if status.startswith("5") and status != "503":
                            book.find("5xx", f"{name}: {first!r}")
                    finally:
                        line = writer.get_extra_info("socket")
                        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                        writer.transport.abort()
            book.done["cut"] += 1
            await asyncio.sleep(0.3)


async def slow(address: tuple[str, int], key: str, book: Book, stop: asyncio.Event) -> None:
    """Idle connections, half headers, and readers that ask for pictures and read nothing."""
    ask = f"GET /pairs?limit=100 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n"
    held: list[asyncio.StreamWriter] = []
    try:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(*address)
                held.append(writer)
                writer.write((b"", b"GET / HT", ask.encode() * 20)[len(held) % 3])
                book.done["slow"] += 1
            while len(held) > _IDLE:
                held.pop(0).transport.abort()
            await asyncio.sleep(0.3)
    finally:
        for writer in held:
            writer.transport.abort()


async def _refused(
    http: httpx.AsyncClient, book: Book, method: str, path: str, what: str, **sent: object
) -> None:
    try:
        answer = await http.request(method, path, **sent)  # type: ignore[arg-type]
    except AWAY:
        book.done["no answer"] += 1
        return
    book.answered(answer, f"{what} to {path}")
    if answer.status_code < 400:
        book.find("other", f"{what} was taken by {path}: {answer.status_code}")
    elif not comes_again(answer):
        book.done["refused"] += 1
