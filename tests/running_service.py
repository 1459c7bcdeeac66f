"""A real server on a port of its own: real migrations, real SQLite, a fake model."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from service.cli.server import Server
from service.core.auth import KeyScope
from service.infra.secrets import key_sha256, new_key
from service.infra.sql import migrate
from service.infra.sql.database import Database
from service.settings import Settings
from service.wiring import DEFAULT_TENANT, Embedded, Served, embedded, open_database, prepare
from tests.fake_runtime import FakeRuntime

LOOKS = ["brightness", "contrast", "saturation", "warmth"]
POOL_SIZE = 12


def make_pool(folder: Path) -> Path:
    """A small pool in the format of `service/pool`."""
    rng = np.random.default_rng(7)
    (folder / "images").mkdir()
    pairs = []
    for i in range(POOL_SIZE):
        images = []
        for side in "ab":
            file = f"pair-{i:02d}-{side}.webp"
            blocks = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(np.kron(blocks, np.ones((8, 8, 1), np.uint8))).save(
                folder / "images" / file
            )
            images.append({"file": file, "alt": f"Blocks of colour, {side} of pair {i}"})
        delta = rng.normal(size=len(LOOKS)).round(3).tolist()
        pairs.append(
            {
                "pair_id": f"pair-{i:02d}",
                "caption": f"blocks {i % 6}",
                "images": images,
                "look_delta": delta,
            }
        )
    document = {"version": "test-1", "looks": LOOKS, "pairs": pairs}
    (folder / "pairs.json").write_text(json.dumps(document))
    words = {"subjects": ["fox"], "settings": ["hill"], "words": ["fox"], "suggestions": ["a fox"]}
    (folder / "vocabulary.json").write_text(json.dumps(words))
    return folder


def on_postgres(url: str) -> dict[str, Any]:
    """Settings for this database, with everything else in one process all the same."""
    return {
        "database_url": url,
        "redis_url": "redis://127.0.0.1:1/0",  # `embedded` asks for none
        "session_secret": "a secret of thirty-two characters",
        "database_pool_timeout_s": 60.0,  # a busy machine is not what is tested
    }


@dataclass
class Service:
    """A running service, and what tests need to look behind it."""

    url: str
    key: str
    settings: Settings
    runtime: Any
    parts: Embedded
    database: Database
    server: Server
    serving: "asyncio.Task[None]"
    _stack: AsyncExitStack

    def client(self, key: str | None = None, **options: Any) -> httpx.AsyncClient:
        """A client with this key; without one, with the first key."""
        headers = {"Authorization": f"Bearer {key or self.key}", **options.pop("headers", {})}
        return self.bare(headers=headers, **options)

    def bare(self, **options: Any) -> httpx.AsyncClient:
        """A client that sends no key."""
        client = httpx.AsyncClient(base_url=self.url, timeout=60, trust_env=False, **options)
        self._stack.push_async_callback(client.aclose)
        return client

    async def session(self, address: str = "127.0.0.1") -> tuple[httpx.AsyncClient, str]:
        """A browser that has opened the page: its client and its user id.

        `address`: for which it asks, where a proxy on this machine is trusted.
        """
        sent = {"Sec-Fetch-Site": "same-origin", "X-Forwarded-For": address}
        client = self.bare(headers=sent)
        page = await client.get("/")
        assert page.status_code == 200, page.text
        return client, page.text.split('name="ppd-user" content="')[1].split('"')[0]

    async def answer(
        self,
        client: httpx.AsyncClient,
        user_id: str,
        preferred: Sequence[int | None] = (0, 1, 0, 1),
    ) -> dict[str, Any]:
        """Answer the first pairs of the quiz, wait for the profile, and give the answer back."""
        quiz = (await client.get(f"/users/{user_id}/quiz")).json()
        choices = [
            {"pair_id": pair["pair_id"], "preferred": side}
            for pair, side in zip(quiz["pairs"], preferred, strict=False)
        ]
        answer = await client.post(
            f"/users/{user_id}/preferences",
            json={"choices": choices},
            headers={"Prefer": "wait=60"},
        )
        assert answer.status_code in (200, 202), answer.text
        return dict(answer.json())

    async def generate(self, client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
        """Generate with few steps, wait for the end, and give the job back."""
        answer = await client.post(
            "/generate",
            json={"prompt": "a fox", "steps": 3, "seed": 7, **body},
            headers={"Prefer": "wait=60"},
        )
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def until(self, client: httpx.AsyncClient, job_id: str, status: str) -> dict[str, Any]:
        """Ask until the job has this status; fails when it ends otherwise, or takes a minute."""
        async with asyncio.timeout(60):
            while True:
                job = (await client.get(f"/jobs/{job_id}")).json()
                if job["status"] == status:
                    return dict(job)
                assert job["status"] in ("queued", "running"), job
                await asyncio.sleep(0.01)

    async def new_key(self, tenant: str, scope: KeyScope = "client") -> str:
        """A key of another tenant."""
        key = new_key()
        async with self.database.write() as store:
            await store.keys.add(tenant, "test", key_sha256(key), scope)
        return key

    async def id_of_key(self, key: str) -> str:
        """Under which a key is listed and revoked."""
        async with self.database.read() as store:
            (found,) = (await store.keys.active([key_sha256(key)])).values()
        return found.pk


@asynccontextmanager
async def running(
    runtime: Any, data_dir: Path, pool_dir: Path, *, ready: bool, **given: Any
) -> AsyncIterator[Service]:
    """A service until the end of the block."""
    given.setdefault("min_free_bytes", 0)  # a folder in memory may be small
    given.setdefault("shutdown_grace_s", 2)
    settings = Settings(data_dir=data_dir, pool_dir=pool_dir, port=0, **given)
    await (_prepare_production if settings.production else prepare)(settings)
    parts = embedded(settings, runtime)
    url, server, serving = await started(settings, parts)
    database = open_database(settings)
    async with AsyncExitStack() as stack:
        service = Service(
            url,
            (data_dir / "api-key").read_text().strip(),
            settings,
            runtime,
            parts,
            database,
            server,
            serving,
            stack,
        )
        if ready:
            async with httpx.AsyncClient(base_url=service.url, trust_env=False) as client:
                while (await client.get("/health/ready")).status_code != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        try:
            yield service
        finally:
            await stack.aclose()
            await stop(service)


async def started(settings: Settings, parts: Served) -> tuple[str, Server, "asyncio.Task[None]"]:
    """A server of these parts on a free port: its address, itself, and the task that it runs in."""
    server = Server(settings, parts)
    serving = asyncio.create_task(server._serve())
    while not server.started:
        assert not serving.done(), serving.result()
        await asyncio.sleep(0.005)
    return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", server, serving


async def _prepare_production(settings: Settings) -> None:
    """As an operator would: `ppd migrate`, then `ppd keys create`. Nothing on a second start."""
    key_file = settings.data_dir / "api-key"
    if key_file.exists():
        return
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    await asyncio.to_thread(migrate.upgrade, settings.database)
    key = new_key()
    key_file.write_text(key)
    database = open_database(settings)
    async with database.write() as store:
        await store.keys.add(DEFAULT_TENANT, "test", key_sha256(key), "admin")
    await database.close()


async def stop(service: Service) -> None:
    """Stop as SIGTERM would; safe to do twice."""
    if isinstance(service.runtime, FakeRuntime):
        service.runtime.gate.set()
        service.runtime.load_gate.set()
    service.server.should_exit = True
    await service.serving
    await service.database.close()
