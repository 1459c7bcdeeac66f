"""A deployment in small: a PostgreSQL, an API replica, and workers that are real processes."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import text

from service.infra.queue.tickets import ProcrastinateDelivery
from service.infra.secrets import key_sha256, new_key
from service.infra.sql import migrate
from service.infra.sql.database import Database
from service.settings import Settings
from service.wiring import api
from tests.running_service import started

ROOT = Path(__file__).resolve().parents[1]
LEASE_S = 3.0
LONGEST_S = 120.0
AT_ONCE_S = 30.0
"""Far less than the workers' grace, so what ends within it did not wait for anything."""


def eventually(look: Callable[[], object]) -> None:
    """Look until it is so; what cannot be reached is not so."""
    ends_s = time.monotonic() + LONGEST_S
    while time.monotonic() < ends_s:
        with contextlib.suppress(OSError):
            if look():
                return
        time.sleep(0.05)
    raise AssertionError("it did not happen")


@dataclass
class Deployment:
    """Everything runs from the same environment."""

    environment: dict[str, str]
    settings: Settings
    database: Database
    url: str
    log: Path
    stack: AsyncExitStack
    client: httpx.AsyncClient = field(init=False)
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    async def client_of(self, tenant: str, url: str | None = None) -> httpx.AsyncClient:
        """A client with a new key of this tenant, of the replica at `url` (else of the first)."""
        key = new_key()
        async with self.database.write() as store:
            await store.keys.add(tenant, "test", key_sha256(key), "client")
        client = httpx.AsyncClient(
            base_url=url or self.url,
            timeout=60,
            trust_env=False,
            headers={"Authorization": f"Bearer {key}"},
        )
        return await self.stack.enter_async_context(client)

    async def another_replica(self) -> str:
        """Start one more API replica; its address."""
        return await self.stack.enter_async_context(_replica(self.settings))

    def worker(self, **options: object) -> "subprocess.Popen[bytes]":
        """Start a worker process; options as in `tests.fake_worker`."""
        arguments = [
            word
            for name, value in options.items()
            for word in (f"--{name.replace('_', '-')}", str(value))
        ]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.fake_worker", *arguments],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        self.workers.append(process)
        return process

    def workers_alive(self) -> int:
        """How many of the started workers still run."""
        return sum(process.poll() is None for process in self.workers)

    async def ready(self) -> None:
        """Wait until every kind of job is taken."""

        async def look() -> bool:
            return (await self.client.get("/health/ready")).status_code == 200

        await self.until(look)

    async def all_ready(self) -> None:
        """Wait until every worker that was started takes jobs."""

        async def look() -> bool:
            async with self.database.read() as store:
                seen = await store.workers.seen(LONGEST_S)
            return sum(row.not_ready is None for row in seen) == len(self.workers)

        await self.until(look)
        await self.ready()

    async def ask(self, **body: Any) -> str:
        """Ask for a picture; the id of the job."""
        answer = await self.client.post("/generate", json={"prompt": "a fox", "steps": 3, **body})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def job(self, job_id: str) -> dict[str, Any]:
        """How a job stands."""
        return dict((await self.client.get(f"/jobs/{job_id}")).json())

    async def all_are(self, job_ids: list[str], *status: str) -> None:
        """Wait until all these jobs have one of these states."""

        await self.until(lambda: self.are_now(job_ids, *status))

    async def are_now(self, job_ids: list[str], *status: str) -> bool:
        """Whether all these jobs have one of these states."""
        return all([(await self.job(job_id))["status"] in status for job_id in job_ids])

    async def until(self, look: Callable[[], Awaitable[bool]], within_s: float = LONGEST_S) -> None:
        """Look until it is so; fails with the workers' log when that takes too long."""
        ends_s = time.monotonic() + within_s
        while not await look():
            if time.monotonic() > ends_s:
                text = self.log.read_text(errors="replace") if self.log.exists() else ""
                raise AssertionError(f"it did not happen; the workers say:\n{text[-4000:]}")
            await asyncio.sleep(0.05)

    async def tickets(self) -> dict[str, int]:
        """How many tickets there are in each state."""
        async with self.database.read() as store:
            rows = await store.session.execute(
                text("SELECT status::text, count(*) FROM procrastinate_jobs GROUP BY 1")
            )
            return {str(status): int(count) for status, count in rows}


@asynccontextmanager
async def deployment(
    postgres_url: str, redis_url: str, data_dir: Path, pool_dir: Path, **given: str
) -> AsyncIterator[Deployment]:
    """An API replica over a new database, without a worker, until the end of the block."""
    wanted = {
        "PPD_DATABASE_URL": postgres_url,
        "PPD_REDIS_URL": redis_url,
        "PPD_SESSION_SECRET": "0" * 32,
        "PPD_DATA_DIR": str(data_dir),
        "PPD_POOL_DIR": str(pool_dir),
        "PPD_MIN_FREE_BYTES": "0",  # a folder in memory may be small
        "PPD_JOB_LEASE_S": str(LEASE_S),
        "PPD_WORKER_SEEN_EVERY_S": "0.5",
        "PPD_WORKER_GRACE_S": "60",
        "PPD_MAX_QUEUED_JOBS_PER_CALLER": "64",
        "PPD_PORT": "0",
        **given,
    }
    settings = Settings(**{name.removeprefix("PPD_").lower(): wanted[name] for name in wanted})
    await asyncio.to_thread(migrate.upgrade, settings.database)
    database = Database(settings.database, ProcrastinateDelivery())
    log = data_dir.parent / "workers.log"
    async with AsyncExitStack() as replicas:
        url = await replicas.enter_async_context(_replica(settings))
        made = Deployment({**os.environ, **wanted}, settings, database, url, log, replicas)
        made.client = await made.client_of("default")
        try:
            yield made
        finally:
            for process in made.workers:
                process.kill()
                process.wait(10)
            await database.close()


@asynccontextmanager
async def _replica(settings: Settings) -> AsyncIterator[str]:
    """An API replica until the end of the block; its address."""
    url, server, serving = await started(settings, api(settings))
    try:
        yield url
    finally:
        server.should_exit = True
        await serving
