"""The one place that decides what stands behind each port of `service.core.ports`.

`embedded` is the default: all in one process. `api` and `worker` are the production scale, each a
process of its own, any number of them. What production needs is imported where it is wired.
"""

import asyncio
import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI

from ppd_model.presets import get_preset
from service.actions.accepting import Accepting
from service.actions.leftovers import sweep_orphans
from service.actions.limits import Limits
from service.api.app import create_app
from service.api.http.edge import Edge
from service.api.http.in_flight import InFlight
from service.api.http.streams import OpenStreams
from service.api.http.tracing import exporting_provider
from service.api.job_lookup import JobLookup
from service.api.key_lookup import KeyLookup
from service.api.services import Services, WorkerState
from service.core.messages import KINDS
from service.core.pool import load_pool
from service.core.ports import Capabilities, ImageStore, ModelRuntime, ProgressEvents
from service.infra import logs
from service.infra.adapters import AdapterCopies
from service.infra.memory.embedding_cache import InProcessEmbeddingCache
from service.infra.memory.events import InProcessEvents
from service.infra.memory.job_signals import JobSignals
from service.infra.memory.rate_limits import RateLimits, Rates
from service.infra.metrics import Metrics
from service.infra.parts import Parts
from service.infra.pictures.folder_store import FolderImageStore
from service.infra.queue.queue_state import QueueMetrics
from service.infra.secrets import first_key, key_sha256, session_secret
from service.infra.sql import migrate
from service.infra.sql.connection_limits import ConnectionLimits
from service.infra.sql.database import Database
from service.infra.sql.delivery import InProcessDelivery, JobDelivery
from service.infra.sql.repositories.retention import Retention
from service.settings import Settings
from service.worker.embedded import Worker
from service.worker.engine_metrics import EngineMetrics
from service.worker.gpu_memory import GpuMemory
from service.worker.metrics_server import serve_metrics

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from service.infra.redis.events import RedisEvents
    from service.infra.redis.job_signals import RedisSignals

DEFAULT_TENANT = "default"
SILENT_TIMES = 3
"""A worker that missed so many of its own reports is gone."""


@dataclass(frozen=True)
class Served:
    """What a server serves, and whose followers it lets go when it stops."""

    app: Edge
    events: ProgressEvents


@dataclass(frozen=True)
class Embedded(Served):
    """API and worker in one process, over SQLite and a local folder."""

    worker: Worker


def embedded(settings: Settings, runtime: ModelRuntime) -> Embedded:
    """Wire everything for one process. `prepare` comes before; the app's lifespan runs the rest."""
    events = InProcessEvents()
    parts = embedded_parts(settings, events)
    adapters = AdapterCopies(settings.adapters_dir, parts.images)
    parts.metrics.also(EngineMetrics(runtime))
    worker = Worker(parts, runtime, settings.job_lease_s, adapters)
    secret = session_secret(settings.data_dir)
    services = _services(settings, parts, runtime.capabilities, worker, secret)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if settings.images_url is None:  # nothing else writes there, so age does not matter
            await sweep_orphans(parts, datetime.now(UTC))
        working = asyncio.create_task(worker.run())
        try:
            yield
        finally:
            events.close()
            worker.stop()
            await working
            await parts.database.close()

    return Embedded(create_app(services, lifespan), events, worker)


def embedded_parts(settings: Settings, events: InProcessEvents) -> Parts:
    """What one process needs to itself."""
    metrics = Metrics()
    metrics.also(GpuMemory())
    return Parts(
        database=open_database(settings),
        images=image_store(settings),
        cache=InProcessEmbeddingCache(),
        events=events,
        signals=JobSignals(),
        rates=RateLimits(rates_of(settings)),
        pool=load_pool(settings.pool_dir),
        retention=retention(settings),
        metrics=metrics,
    )


@contextlib.asynccontextmanager
async def opened_parts(settings: Settings) -> AsyncIterator[Parts]:
    """The parts of either scale, for a command beside the running service."""
    if settings.production:
        production = parts_of(settings)
        async with production.opened():
            yield production.parts
        return
    parts = embedded_parts(settings, InProcessEvents())
    try:
        yield parts
    finally:
        await parts.database.close()


@dataclass(frozen=True)
class Scraped:
    """Where a worker answers Prometheus; a `port` of None is nowhere, 0 a free one."""

    host: str
    port: int | None


UNSCRAPED = Scraped("127.0.0.1", None)


@dataclass(frozen=True)
class Production:
    """What an API replica and a worker process have in common."""

    parts: Parts
    events: "RedisEvents"
    signals: "RedisSignals"
    redis: "Redis"

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Connected until the end of the block. PostgreSQL and Redis may come later, or go."""
        try:
            async with self.events, self.signals:
                yield
        finally:
            await self.redis.aclose()
            await self.parts.database.close()


def parts_of(settings: Settings) -> Production:
    """The parts of the production scale. Opens nothing yet."""
    from service.infra.redis.client import open_redis
    from service.infra.redis.embedding_cache import RedisEmbeddingCache
    from service.infra.redis.events import RedisEvents
    from service.infra.redis.job_signals import RedisSignals
    from service.infra.redis.rate_limits import RedisRateLimits

    assert settings.redis_url is not None
    redis = open_redis(settings.redis_url.get_secret_value())
    events, signals = RedisEvents(redis), RedisSignals(redis)
    metrics = Metrics()
    parts = Parts(
        database=open_database(settings),
        images=image_store(settings),
        cache=RedisEmbeddingCache(redis),
        events=events,
        signals=signals,
        rates=RedisRateLimits(redis, rates_of(settings)),
        pool=load_pool(settings.pool_dir),
        retention=retention(settings),
        metrics=metrics,
    )
    return Production(parts, events, signals, redis)


def api(settings: Settings) -> Served:
    """Wire an API replica: no model, no torch, nothing of its own that must not be lost."""
    from service.infra.queue.remote_workers import RemoteWorkers

    production = parts_of(settings)
    parts = production.parts
    gone_after_s = SILENT_TIMES * settings.worker_seen_every_s
    workers = RemoteWorkers(parts.database, KINDS, gone_after_s, production.redis.ping)
    preset = get_preset(settings.preset)
    capabilities = Capabilities(preset.name, preset.default_side_px, preset.allowed_sides_px)
    assert settings.session_secret is not None
    secret = settings.session_secret.get_secret_value()
    services = _services(settings, parts, capabilities, workers, secret)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with production.opened():
            yield

    return Served(create_app(services, lifespan), parts.events)


async def worker(
    settings: Settings,
    runtime: ModelRuntime,
    kinds: Collection[str],
    concurrency: int,
    scraped: Scraped = UNSCRAPED,
) -> int:
    """Run a worker process until it is told to stop; its exit status."""
    from service.infra.queue.tickets import Tickets
    from service.worker.process import Terms, WorkerProcess

    production = parts_of(settings)
    parts = production.parts
    tickets = Tickets(settings.database, parts.database, KINDS)
    terms = Terms(
        frozenset(kinds),
        concurrency,
        lease_s=settings.job_lease_s,
        grace_s=settings.worker_grace_s,
        seen_every_s=settings.worker_seen_every_s,
    )
    parts.metrics.also(EngineMetrics(runtime))
    serving: AbstractContextManager[int] = contextlib.nullcontext(0)
    if scraped.port is not None:
        serving = serve_metrics(parts.metrics, scraped.port, scraped.host)
    with serving:
        async with production.opened():
            adapters = AdapterCopies(settings.adapters_dir, parts.images)
            return await WorkerProcess(parts, tickets, runtime, terms, adapters).run()


def _services(
    settings: Settings,
    parts: Parts,
    capabilities: Capabilities,
    worker: WorkerState,
    secret: str,
) -> Services:
    limits = Limits(
        max_body_bytes=settings.max_body_bytes,
        max_queued_jobs=settings.max_queued_jobs,
        max_queued_jobs_of_sessions=settings.max_queued_jobs_of_sessions,
        max_queued_jobs_per_caller=settings.max_queued_jobs_per_caller,
        max_queued_jobs_per_session=settings.max_queued_jobs_per_session,
        max_uploads_per_user=settings.max_uploads_per_user,
        max_upload_bytes_per_user=settings.max_upload_bytes_per_user,
        job_expiry_s=settings.job_expiry_s,
        session_max_age_s=settings.session_max_age_s,
        openai_wait_s=settings.openai_wait_s,
    )
    return Services(
        **parts.by_name(),
        capabilities=capabilities,
        worker=worker,
        limits=limits,
        keys=KeyLookup(parts.database, settings.api_key_believed_s),
        jobs=JobLookup(parts.database),
        accepting=Accepting(parts, limits, worker.versions),
        in_flight=InFlight(),
        streams=OpenStreams(settings.max_event_streams, settings.max_event_streams_per_caller),
        session_secret=secret,
        web_dir=settings.web_dir,
        queue_metrics=QueueMetrics(parts.database),
        metrics_access=settings.metrics,
        cors_origins=settings.allowed_origins,
        tracer_provider=exporting_provider() if settings.tracing else None,
        new_seed=lambda: secrets.randbelow(2**31),
    )


def open_database(settings: Settings) -> Database:
    """The database that the settings name; what is queued in it comes to the workers there."""
    delivery: JobDelivery = InProcessDelivery()
    if settings.production:
        from service.infra.queue.tickets import ProcrastinateDelivery

        delivery = ProcrastinateDelivery()
    limits = ConnectionLimits(
        pool_size=settings.database_pool_size,
        pool_timeout_s=settings.database_pool_timeout_s,
        connect_timeout_s=settings.database_connect_timeout_s,
        lock_timeout_s=settings.database_lock_timeout_s,
        statement_timeout_s=settings.database_statement_timeout_s,
    )
    return Database(settings.database, delivery, limits)


def rates_of(settings: Settings) -> Rates:
    """The limits that are counted, by this process alone or by all together."""
    return Rates(
        key=settings.rate_limit_key,
        session=settings.rate_limit_session,
        address=settings.rate_limit_address,
        gpu_seconds=settings.gpu_seconds_per_user,
    )


def image_store(settings: Settings) -> ImageStore:
    """The folder, or the bucket that PPD_IMAGES_URL names. Opens no connection."""
    if settings.images_url is None:
        return FolderImageStore(settings.data_dir / "images", settings.min_free_bytes)
    from service.infra.pictures.object_store import ObjectImageStore

    return ObjectImageStore(settings.images_url, settings.s3_timeout_s, config=settings.s3_config())


def retention(settings: Settings) -> Retention:
    def days(number: int | None) -> timedelta | None:
        return None if number is None else timedelta(days=number)

    return Retention(
        pictures=days(settings.retain_pictures_days),
        jobs=days(settings.retain_jobs_days),
        inactive_users=days(settings.retain_inactive_users_days),
    )


def start_logs(settings: Settings) -> None:
    """Let this process write its log as the settings say; first of all."""
    form = settings.log_format or ("json" if settings.production else "text")
    logs.install(form, settings.log_level, settings.secrets)


async def prepare(settings: Settings) -> Path | None:
    """Make the data folder, bring the schema up to date, and make the first API key.

    The key's file comes before its hash, which commits last: wherever a first start is lost, the
    next one takes it up. Gives the path of the file when the key came into use now.

    In production there is one `ppd migrate` for many processes, which may be newer than some of
    them, and `ppd keys create` instead of a file on one of the machines: here it is only looked
    whether the schema is old. Raises ValueError then.
    """
    if settings.production:
        await asyncio.to_thread(migrate.refuse_old, settings.database)
        return None
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if settings.database_url is None:  # SQLite gives its other files the mode of this one
        (settings.data_dir / "ppd.db").touch(mode=0o600)
    await asyncio.to_thread(migrate.upgrade, settings.database)
    path = settings.data_dir / "api-key"
    database = open_database(settings)
    try:
        async with database.write() as store:
            await store.alone("first key")
            if await store.keys.all():
                return None
            key = await asyncio.to_thread(first_key, path)
            await store.keys.add(DEFAULT_TENANT, "first start", key_sha256(key), "admin")
    finally:
        await database.close()
    return path


@contextlib.contextmanager
def sole_user_of(data_dir: Path) -> Iterator[None]:
    """Hold the data folder; raises ValueError when another process holds it."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (data_dir / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another service already runs on {data_dir}") from None
        yield


def free_bytes(data_dir: Path) -> int:
    """Space left where the data folder is, in bytes."""
    return shutil.disk_usage(data_dir).free


def writable(data_dir: Path) -> bool:
    """Whether files can be made in the data folder."""
    return os.access(data_dir, os.W_OK | os.X_OK)
