"""The one place that decides what stands behind each port of `service.core.ports`.

`embedded` is the default: all in one process. `api` and `worker` are the production scale, each a
process of its own, any number of them. What production needs is imported where it is wired.
"""

import asyncio
import contextlib
import fcntl
import secrets
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fastapi import FastAPI

from ppd_model.pictures.apart import Readers
from ppd_model.presets import get_preset
from ppd_model.words import caption_words_of, vocabulary_of
from service.actions.accepting import Accepting
from service.actions.gate import Gate
from service.actions.leftovers import sweep_orphans
from service.actions.limits import Limits, Room
from service.actions.queue_places import QueuePlaces
from service.api.app import create_app
from service.api.http.in_flight import InFlight
from service.api.http.outermost import Outermost
from service.api.http.streams import OpenStreams
from service.api.http.tracing import exporting_provider
from service.api.job_lookup import JobLookup
from service.api.key_lookup import KeyLookup
from service.api.services import Services, WorkerState
from service.core.messages import KINDS
from service.core.pool import load_pool
from service.core.ports import (
    Capabilities,
    EmbeddingCache,
    ImageStore,
    ModelRuntime,
    Moderation,
    ProgressEvents,
)
from service.infra import logs
from service.infra.adapters import AdapterCopies
from service.infra.memory.embedding_cache import InProcessEmbeddingCache
from service.infra.memory.events import InProcessEvents
from service.infra.memory.job_signals import JobSignals
from service.infra.memory.rate_limits import RateLimits, Rates
from service.infra.metrics import Metrics
from service.infra.moderation.judges import Judges
from service.infra.moderation.word_list import WordList
from service.infra.parts import Parts
from service.infra.pictures.folder_store import FolderImageStore
from service.infra.pictures.mark import store_mark
from service.infra.queue.queue_state import QueueMetrics
from service.infra.secrets import first_key, key_sha256, session_secret
from service.infra.sql import migrate
from service.infra.sql.connection_limits import ConnectionLimits
from service.infra.sql.database import Database
from service.infra.sql.delivery import InProcessDelivery, JobDelivery
from service.infra.sql.oversight.audit import SERVICE
from service.infra.sql.repositories.retention import Retention
from service.settings import Settings
from service.worker.embedded import Worker
from service.worker.engine_metrics import EngineMetrics
from service.worker.gpu_memory import GpuMemory
from service.worker.metrics_server import serve_metrics

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from redis.asyncio import Redis

    from service.infra.pictures.signing import Signing

_Some = TypeVar("_Some", bound="DataclassInstance")

DEFAULT_TENANT = "default"
SILENT_TIMES = 3
"""A worker that missed so many of its own reports is gone."""


@dataclass(frozen=True)
class Served:
    """What a server serves, and whose followers it lets go when it stops."""

    app: Outermost
    events: ProgressEvents


@dataclass(frozen=True)
class Embedded(Served):
    """API and worker in one process, over SQLite and a local folder."""

    worker: Worker


def embedded(settings: Settings, runtime: ModelRuntime) -> Embedded:
    """Wire everything for one process. `prepare` comes before; the app's lifespan runs the rest."""
    wired = wire(settings, shared=False)
    parts = wired.parts
    adapters = AdapterCopies(settings.adapters_dir, parts.images)
    parts.metrics.also(EngineMetrics(runtime))
    worker = Worker(parts, runtime, settings.job_lease_s, adapters)
    secret = session_secret(settings.data_dir)
    services = _services(settings, parts, runtime.capabilities, worker, secret)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with wired.opened():
            if settings.images_url is None:  # nothing else writes there, so age does not matter
                await sweep_orphans(parts, datetime.now(UTC))
            working = asyncio.create_task(worker.run())
            try:
                yield
            finally:
                services.readers.close()
                parts.events.close()
                worker.stop()
                await working

    return Embedded(create_app(services, lifespan), parts.events, worker)


@dataclass(frozen=True)
class Wired:
    """The parts of one scale; of production with the connections to Redis that they share."""

    parts: Parts
    redis: "Redis | None"

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Parts]:
        """Connected until the end of the block. PostgreSQL and Redis may come later, or go."""
        try:
            async with self.parts.events, self.parts.signals:
                yield self.parts
        finally:
            if self.redis is not None:
                await self.redis.aclose()
            await self.parts.database.close()


def wire(settings: Settings, *, shared: bool) -> Wired:
    """What stands behind each port: of this process alone, or shared by all. Opens nothing yet."""
    limits = Rates(
        key=settings.rate_limit_key,
        session=settings.rate_limit_session,
        address=settings.rate_limit_address,
        gpu_seconds=settings.gpu_seconds_per_user,
        gpu_seconds_of_tenant=settings.gpu_seconds_per_tenant,
        gpu_seconds_of_sessions=settings.gpu_seconds_of_sessions,
        gpu_seconds_of_address=settings.gpu_seconds_per_address,
    )
    redis = None
    cache: EmbeddingCache = InProcessEmbeddingCache()
    events: ProgressEvents = InProcessEvents()
    signals, rates = JobSignals(), RateLimits(limits)
    if shared:
        from service.infra.redis.client import open_redis
        from service.infra.redis.embedding_cache import RedisEmbeddingCache
        from service.infra.redis.events import RedisEvents
        from service.infra.redis.job_signals import RedisSignals
        from service.infra.redis.rate_limits import RedisRateLimits

        assert settings.redis_url is not None
        redis = open_redis(settings.redis_url.get_secret_value())
        cache, events = RedisEmbeddingCache(redis), RedisEvents(redis)
        signals, rates = RedisSignals(redis), RedisRateLimits(redis, limits)
    metrics = Metrics()
    metrics.also(GpuMemory())
    parts = Parts(
        database=open_database(settings),
        images=image_store(settings),
        cache=cache,
        events=events,
        signals=signals,
        rates=rates,
        pool=load_pool(settings.pool_dir),
        retention=Retention(
            pictures=_days(settings.retain_pictures_days),
            jobs=_days(settings.retain_jobs_days),
            inactive_users=_days(settings.retain_inactive_users_days),
            sessions=_days(settings.retain_sessions_days or None),
            jobs_of_nobody=_days(settings.retain_jobs_of_nobody_days or None),
            cookies=timedelta(seconds=settings.session_max_age_s),
            audit=_days(settings.retain_audit_days or None),
        ),
        moderation=judges(settings),
        metrics=metrics,
        signer=signer(settings),
    )
    return Wired(parts, redis)


def api(settings: Settings) -> Served:
    """Wire an API replica: no model, no torch, nothing of its own that must not be lost."""
    from service.infra.queue.remote_workers import RemoteWorkers
    from service.infra.redis.client import takes_writes

    wired = wire(settings, shared=True)
    parts = wired.parts
    assert wired.redis is not None
    gone_after_s = SILENT_TIMES * settings.worker_seen_every_s
    redis = wired.redis
    workers = RemoteWorkers(
        parts.database,
        KINDS,
        gone_after_s,
        lambda: takes_writes(redis),
        lambda: store_mark(parts.images),
    )
    preset = get_preset(settings.preset)
    capabilities = Capabilities(
        preset.name,
        preset.default_side_px,
        preset.allowed_sides_px,
        preset.sampling,
        vocabulary_of(preset, settings.weights_dir),
        caption_words_of(preset, settings.weights_dir),
    )
    assert settings.session_secret is not None
    secret = settings.session_secret.get_secret_value()
    services = _services(settings, parts, capabilities, workers, secret)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with wired.opened():
            try:
                yield
            finally:
                services.readers.close()

    return Served(create_app(services, lifespan), parts.events)


async def worker(
    settings: Settings,
    runtime: ModelRuntime,
    kinds: Collection[str],
    concurrency: int,
    metrics_at: tuple[str, int] | None = None,
) -> int:
    """Run a worker process until it is told to stop; its exit status.

    `metrics_at`: the host and port where it answers Prometheus; port 0 is a free one.
    """
    from service.infra.queue.tickets import Tickets
    from service.worker.process import Terms, WorkerProcess

    wired = wire(settings, shared=True)
    parts = wired.parts
    tickets = Tickets(settings.database, parts.database, KINDS)
    terms = Terms(
        frozenset(kinds),
        concurrency,
        lease_s=settings.job_lease_s,
        grace_s=settings.worker_grace_s,
        seen_every_s=settings.worker_seen_every_s,
    )
    parts.metrics.also(EngineMetrics(runtime))
    adapters = AdapterCopies(settings.adapters_dir, parts.images)
    with serve_metrics(parts.metrics, *metrics_at) if metrics_at else contextlib.nullcontext():
        async with wired.opened():
            return await WorkerProcess(parts, tickets, runtime, terms, adapters).run()


def _services(
    settings: Settings,
    parts: Parts,
    capabilities: Capabilities,
    worker: WorkerState,
    secret: str,
) -> Services:
    limits = _of(settings, Limits)
    return Services(
        **parts.by_name(),
        capabilities=capabilities,
        worker=worker,
        limits=limits,
        keys=KeyLookup(parts.database, settings.api_key_believed_s),
        jobs=JobLookup(parts.database),
        places=QueuePlaces(parts.database, worker.working),
        accepting=Accepting(parts, limits, worker.versions),
        room=Room(parts.database, limits),
        in_flight=InFlight(),
        gate=Gate(settings.max_held_body_bytes, settings.max_requests_with_pictures),
        readers=Readers(),
        streams=OpenStreams(settings.max_event_streams, settings.max_event_streams_per_caller),
        waits=OpenStreams(settings.max_waits, settings.max_waits_per_caller),
        session_secret=secret,
        web_dir=settings.web_dir,
        queue_metrics=QueueMetrics(parts.database),
        metrics_access=settings.metrics,
        exact_sizes=settings.openai_sizes == "exact",
        cors_origins=settings.allowed_origins,
        allowed_hosts=settings.answered_hosts,
        public_url=settings.public_url,
        tracer_provider=exporting_provider() if settings.tracing else None,
        new_seed=lambda: secrets.randbelow(2**31),
    )


def open_database(settings: Settings) -> Database:
    """The database that the settings name; what is queued in it comes to the workers there."""
    delivery: JobDelivery = InProcessDelivery()
    if settings.production:
        from service.infra.queue.tickets import ProcrastinateDelivery

        delivery = ProcrastinateDelivery()
    limits = _of(settings, ConnectionLimits, "database_")
    return Database(settings.database, delivery, limits)


def image_store(settings: Settings) -> ImageStore:
    """The folder, or the bucket that PPD_IMAGES_URL names. Opens no connection."""
    if settings.images_url is None:
        return FolderImageStore(settings.data_dir / "images", settings.min_free_bytes)
    from service.infra.pictures.object_store import ObjectImageStore

    return ObjectImageStore(settings.images_url, settings.s3_timeout_s, config=settings.s3_config())


def signer(settings: Settings) -> "Signing | None":
    """What signs pictures by C2PA, if anything. Raises OSError or ValueError for what cannot."""
    if settings.c2pa_certificate is None or settings.c2pa_key is None:
        return None
    try:
        from service.infra.pictures.signing import Signing
    except ImportError as error:
        raise ValueError("PPD_C2PA_CERTIFICATE needs the extra `c2pa`") from error
    return Signing(settings.c2pa_certificate, settings.c2pa_key, settings.c2pa_timestamp_url)


def judges(settings: Settings) -> Judges:
    """Who judges content: the operator's words, then a service over HTTP, as far as they are set.

    Raises OSError or ValueError for a list of words that cannot be read.
    """
    asked: list[Moderation] = []
    if settings.moderation_words is not None:
        asked.append(WordList.read(settings.moderation_words))
    if settings.moderation_url is not None:
        try:
            from service.infra.moderation.over_http import HttpModeration
        except ImportError as error:
            raise ValueError("PPD_MODERATION_URL needs the extra `moderation`") from error
        key = settings.moderation_key
        asked.append(
            HttpModeration(
                settings.moderation_url,
                key=None if key is None else key.get_secret_value(),
                model=settings.moderation_model,
                timeout_s=settings.moderation_timeout_s,
            )
        )
    return Judges(asked, settings.moderated_places)


def _days(number: int | None) -> timedelta | None:
    return None if number is None else timedelta(days=number)


def _of(settings: Settings, kind: type[_Some], prefix: str = "") -> _Some:
    """Those of the settings that have the names of this dataclass's fields, after the prefix."""
    names = [field.name for field in fields(kind)]
    return kind(**{name: getattr(settings, prefix + name) for name in names})


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
            row = await store.keys.add(DEFAULT_TENANT, "first start", key_sha256(key), "admin")
            await store.audit.note(SERVICE, "key.made", f"key:{row.pk}", DEFAULT_TENANT)
    finally:
        await database.close()
    return path


@contextlib.contextmanager
def sole_user_of(folder: Path, who: str = "service") -> Iterator[None]:
    """Hold a folder of data; raises ValueError when another process holds it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another {who} already runs on {folder}") from None
        yield
