"""How much strangers cost others, on the embedded default as `ppd serve` starts it.

    python -m benchmarks.service.strangers [--only uploads idle sessions ids]

Each line is what somebody else waits with and without them, in seconds: medians. `idle` runs the
service at 400 descriptors and counts the lines of its log.
"""

import argparse
import asyncio
import base64
import contextlib
import io
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

PORT = 8123
URL = f"http://127.0.0.1:{PORT}"
DESCRIPTORS = 400
LONG = {"prompt": "a red fox", "fresh": True, "steps": 50}
"""What strangers ask for: jobs that wait for each other."""
ORDER = (1, 16, 16, 1)
Ask = Callable[[], Awaitable[object]]


def picture(side_px: int, kind: str, **how: Any) -> str:
    file = io.BytesIO()
    Image.new("RGB", (side_px, side_px), (90, 30, 60)).save(file, kind, **how)
    return base64.b64encode(file.getvalue()).decode()


def answers(image: str, count: int) -> dict[str, Any]:
    choice = {"caption": "mine", "images": [image, image], "preferred": None}
    return {"choices": [choice] * count}


@contextlib.asynccontextmanager
async def service(folder: Path, descriptors: int | None = None) -> AsyncIterator[Path]:
    """`ppd serve` until the end of the block; gives its log."""

    def few() -> None:
        if descriptors is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    log = folder / "log"
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(PORT)]
    with log.open("wb") as file:
        running = await asyncio.create_subprocess_exec(
            *command, "--data-dir", str(folder), stdout=file, stderr=file, preexec_fn=few
        )
    try:
        async with httpx.AsyncClient(base_url=URL, timeout=5) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get("/health/ready")).status_code == 200:
                        break
                await asyncio.sleep(0.5)
        yield log
    finally:
        running.terminate()
        await running.wait()


def with_key(key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=URL, timeout=300, headers={"Authorization": f"Bearer {key}"})


def another_tenants(folder: Path) -> str:
    command = [sys.executable, "-m", "service.cli", "keys", "create", "--name", "other"]
    made = subprocess.run(  # noqa: S603 - ourselves
        [*command, "--tenant", "other", "--data-dir", str(folder)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return made.stdout.strip()


def paints(client: httpx.AsyncClient, **body: Any) -> Ask:
    async def ask() -> None:
        asked = {"prompt": "a red fox on a hill", "fresh": True, **body}
        answer = await client.post("/generate", json=asked, headers={"Prefer": "wait=60"})
        assert answer.json()["status"] == "succeeded", answer.text

    return ask


def uploads(client: httpx.AsyncClient) -> Ask:
    async def ask() -> None:
        body = answers(picture(64, "PNG"), 1)
        answer = await client.post("/users/small/preferences", json=body)
        assert answer.status_code == 202, answer.text

    return ask


async def median_s(ask: Ask, times: int = 5) -> float:
    took = []
    for _ in range(times):
        began = time.monotonic()
        await ask()
        took.append(time.monotonic() - began)
    return statistics.median(took)


def tell(what: str, alone_s: float, beside_s: float) -> None:
    print(f"{what}: {alone_s:.2f} -> {beside_s:.2f}, {beside_s / alone_s:.1f}x", flush=True)


async def beside_uploads(mine: httpx.AsyncClient, theirs: httpx.AsyncClient) -> None:
    small, paint = uploads(mine), paints(mine)
    await small()
    alone = await median_s(small), await median_s(paint)
    body = answers(picture(2048, "WEBP", lossless=True), 16)
    hostile = [
        asyncio.create_task(theirs.post(f"/users/u{i}/preferences", json=body)) for i in range(8)
    ]
    await asyncio.sleep(0.5)
    tell("a small upload beside eight of 10 kB", alone[0], await median_s(small))
    tell("a picture beside them", alone[1], await median_s(paint))
    print("they got", sorted({answer.status_code for answer in await asyncio.gather(*hostile)}))


async def beside_sessions(mine: httpx.AsyncClient) -> None:
    paint = paints(mine)
    alone = await median_s(paint)
    taken = 0
    for _ in range(52):
        async with httpx.AsyncClient(
            base_url=URL, timeout=60, headers={"Sec-Fetch-Site": "same-origin"}
        ) as browser:
            await browser.get("/")
            job = await browser.post("/generate", json=LONG)
            taken += job.status_code == 202
    tell(f"a key's picture beside {taken} jobs of 52 sessions", alone, await median_s(paint, 3))


async def beside_ids(mine: httpx.AsyncClient, theirs: httpx.AsyncClient, rounds: int) -> None:
    """In turns, each from an empty queue: a process's first pictures take longer than others."""
    paint = paints(mine)
    await paint()
    await paints(theirs, user_id="id0")()
    waits: dict[int, list[float]] = {1: [], 16: []}
    for ids in ORDER * rounds:
        for i in range(16):
            job = await theirs.post("/generate", json={**LONG, "user_id": f"id{i % ids}"})
            assert job.status_code == 202, job.text
        waits[ids].append(await median_s(paint, 3))
        for i in range(ids):
            (await theirs.delete("/jobs", params={"user_id": f"id{i}"})).raise_for_status()
        await paints(theirs, user_id="id0")()
    one, many = (statistics.median(waits[ids]) for ids in (1, 16))
    tell("a key beside another's 16 jobs, of one id -> of 16", one, many)


def lines_of(log: Path) -> int:
    return len(log.read_bytes().splitlines())


async def beside_idle(mine: httpx.AsyncClient, log: Path) -> None:
    paint = paints(mine)
    await paint()
    lines = lines_of(log)
    idle = [await asyncio.open_connection("127.0.0.1", PORT) for _ in range(420)]
    served = 0
    for _ in range(10):
        async with httpx.AsyncClient(base_url=URL, timeout=20) as other:
            served += (await other.get("/health/live")).status_code == 200
    await paint()
    await asyncio.sleep(15)
    for _, writer in idle:
        writer.close()
    told = lines_of(log) - lines
    print(f"420 idle at {DESCRIPTORS} descriptors: {served} of 10 served, {told} lines of log")


async def measure(only: set[str], rounds: int) -> None:
    for name in sorted(only):
        with tempfile.TemporaryDirectory() as name_of:
            folder = Path(name_of)
            descriptors = DESCRIPTORS if name == "idle" else None
            async with contextlib.AsyncExitStack() as stack:
                log = await stack.enter_async_context(service(folder, descriptors))
                key = (folder / "api-key").read_text().strip()
                theirs = await stack.enter_async_context(with_key(key))
                mine = await stack.enter_async_context(with_key(another_tenants(folder)))
                if name == "uploads":
                    await beside_uploads(mine, theirs)
                elif name == "sessions":
                    await beside_sessions(mine)
                elif name == "ids":
                    await beside_ids(mine, theirs, rounds)
                else:
                    await beside_idle(mine, log)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    names = ("uploads", "idle", "sessions", "ids")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=3, help="of `ids`")
    given = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}", flush=True)
    asyncio.run(measure(set(given.only), given.rounds))


if __name__ == "__main__":
    main()
