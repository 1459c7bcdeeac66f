"""What is soaked: processes that can be killed, frozen and started again, and their stores."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from service.infra.secrets import key_sha256, new_key
from service.infra.sql import migrate
from service.settings import Settings
from service.wiring import DEFAULT_TENANT, open_database
from tests.running_service import make_pool
from tests.servers import Postgres, Redis, free_port, postgres_server, redis_server
from tests.soak.book import Book
from tests.soak.fake_serve import STEP_S

ROOT = Path(__file__).resolve().parents[2]
READY_S = 120.0
_WORKERS = 2
_BALLAST_BYTES = 4 * 2**30
_LOCKED_S = 4.0
_AWAY_S = 6.0
_FROZEN_S = 8.0


@dataclass
class Program:
    """A process that is started again after its end."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=self.environment, stdout=log, stderr=log
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None


@dataclass
class Served:
    """A running service of one scale; `faults` are what can be done to it."""

    url: str
    key: str
    data_dir: Path
    programs: list[Program]
    book: Book
    postgres: Postgres | None = None
    redis: Redis | None = None
    floor_bytes: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(5))

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.url.rsplit(":", 1)[1])

    @property
    def faults(self) -> list[Callable[[], Awaitable[None]]]:
        faults = [self.kill, self.freeze, self.fill_disk]
        if self.postgres is not None:
            return [*faults, self.redis_away, self.redis_emptied, self.postgres_away]
        return [*faults, self.lock_database]

    async def ready(self) -> None:
        """Wait until all kinds of jobs are taken; raises TimeoutError."""
        async with (
            asyncio.timeout(READY_S),
            httpx.AsyncClient(base_url=self.url, timeout=10, trust_env=False) as client,
        ):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get("/health/ready")).status_code == 200:
                        return
                await asyncio.sleep(0.1)

    async def kill(self) -> None:
        """kill -9 of the whole service, or of a worker; it is started again at once."""
        program = self._one()
        self.book.fault(f"kill -9 of {program.name}")
        program.kill()
        program.start()
        await self.ready()

    async def freeze(self) -> None:
        """A process that stands still: in production for longer than a lease."""
        program = self._one()
        self.book.fault(f"{program.name} stands still for {_FROZEN_S:.0f} s")
        os.kill(program.pid, signal.SIGSTOP)
        await asyncio.sleep(_FROZEN_S)
        os.kill(program.pid, signal.SIGCONT)
        await self.ready()

    async def fill_disk(self) -> None:
        """Less room than the floor, by a file of zeros that was never written."""
        ballast = self.data_dir.parent / "ballast"
        over = shutil.disk_usage(self.data_dir).free - self.floor_bytes + 64 * 2**20
        if over <= 0 or over > 3 * _BALLAST_BYTES:
            self.book.fault("the disk could not be filled: others write to it")
            return
        self.book.fault(f"the disk is full for {_AWAY_S:.0f} s")
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, over)
        await asyncio.sleep(_AWAY_S)
        ballast.unlink()

    async def lock_database(self) -> None:
        """Another process holds SQLite's lock."""
        self.book.fault(f"the database is locked for {_LOCKED_S:.0f} s")
        with contextlib.closing(
            sqlite3.connect(
                self.data_dir / "ppd.db",
                timeout=30,
                isolation_level=None,
                check_same_thread=False,
            )
        ) as other:
            await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
            await asyncio.sleep(_LOCKED_S)
            other.execute("ROLLBACK")

    async def redis_away(self) -> None:
        assert self.redis is not None
        self.book.fault(f"Redis is away for {_AWAY_S:.0f} s")
        self.redis.kill()
        await asyncio.sleep(_AWAY_S)
        await asyncio.to_thread(self.redis.start)

    async def redis_emptied(self) -> None:
        assert self.redis is not None
        self.book.fault("Redis is emptied")
        await asyncio.to_thread(self.redis.empty)

    async def postgres_away(self) -> None:
        assert self.postgres is not None
        self.book.fault(f"PostgreSQL is away for {_AWAY_S:.0f} s")
        await asyncio.to_thread(self.postgres.stop)
        await asyncio.sleep(_AWAY_S)
        await asyncio.to_thread(self.postgres.start)
        await self.ready()

    def _one(self) -> Program:
        """The service itself, in production a worker."""
        return self.chance.choice(self.programs[1:] or self.programs)


@asynccontextmanager
async def embedded_service(folder: Path, book: Book, step_s: float) -> AsyncIterator[Served]:
    """The embedded default with a fake model, as a process of its own."""
    environment, floor = _environment(folder, step_s)
    program = Program("the service", _SERVE, environment, folder / "service.log")
    with _running([program]):
        url = f"http://127.0.0.1:{environment['PPD_PORT']}"
        served = Served(url, "", folder / "data", [program], book, floor_bytes=floor)
        await served.ready()
        served.key = (folder / "data" / "api-key").read_text().strip()
        yield served


@asynccontextmanager
async def production(folder: Path, book: Book, step_s: float) -> AsyncIterator[Served]:
    """An API replica and workers over a PostgreSQL and a Redis of their own."""
    with postgres_server() as postgres, redis_server() as redis:
        environment, floor = _environment(folder, step_s)
        environment |= {
            "PPD_DATABASE_URL": postgres.database(),
            "PPD_REDIS_URL": redis.url,
            "PPD_SESSION_SECRET": "0" * 32,
            "PPD_JOB_LEASE_S": "5",
            "PPD_WORKER_SEEN_EVERY_S": "1",
        }
        key = await _first_key(environment)
        worker = [sys.executable, "-m", "tests.fake_worker", "--step-s", str(step_s)]
        programs = [Program("the API", _SERVE, environment, folder / "api.log")]
        programs += [
            Program(f"worker {i}", worker, environment, folder / f"worker-{i}.log")
            for i in range(_WORKERS)
        ]
        with _running(programs):
            url = f"http://127.0.0.1:{environment['PPD_PORT']}"
            data_dir = folder / "data"
            served = Served(url, key, data_dir, programs, book, postgres, redis, floor)
            await served.ready()
            yield served


_SERVE = [sys.executable, "-m", "tests.soak.fake_serve"]


def _environment(folder: Path, step_s: float) -> tuple[dict[str, str], int]:
    """Of every process; and the floor of free space, which a full disk goes below."""
    (folder / "pool").mkdir()
    (folder / "data").mkdir()
    free = shutil.disk_usage(folder).free
    floor = max(0, free - min(_BALLAST_BYTES, free // 4))
    wanted = {
        "PPD_DATA_DIR": str(folder / "data"),
        "PPD_POOL_DIR": str(make_pool(folder / "pool")),
        "PPD_PORT": str(free_port()),
        "PPD_MIN_FREE_BYTES": str(floor),
        "PPD_LOG_LEVEL": "WARNING",
        STEP_S: str(step_s),
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PPD_")}
    return {**kept, **wanted}, floor


async def _first_key(environment: Mapping[str, str]) -> str:
    names = ("PPD_DATABASE_URL", "PPD_REDIS_URL", "PPD_SESSION_SECRET")
    settings = Settings(**{name[4:].lower(): environment[name] for name in names})
    await asyncio.to_thread(migrate.upgrade, settings.database)
    database, key = open_database(settings), new_key()
    async with database.write() as store:
        await store.keys.add(DEFAULT_TENANT, "soak", key_sha256(key), "admin")
    await database.close()
    return key


@contextmanager
def _running(programs: list[Program]) -> Iterator[None]:
    try:
        for program in programs:
            program.start()
        yield
    finally:
        for program in programs:
            if not program.ended():
                os.kill(program.pid, signal.SIGCONT)
                program.kill()
