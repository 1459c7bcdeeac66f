"""How the queue stands, asked of the database when somebody looks, and not too often."""

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy import func, select

from service.core.messages import KINDS
from service.infra.ending import in_time
from service.infra.sql.clock import in_seconds
from service.infra.sql.database import Database
from service.infra.sql.tables import Job, WorkerRow, seconds_since

_FRESH_S = 1.0
_PATIENCE_S = 2.0
_SEEN = timedelta(seconds=60)


@dataclass(frozen=True)
class QueueState:
    """Jobs by (kind, status), the age of the oldest that waits by kind, workers by (kind, state).

    A worker's state is ready or not_ready; one not seen for a minute is not there.
    """

    jobs: dict[tuple[str, str], int]
    oldest_s: dict[str, float]
    workers: dict[tuple[str, str], int]


async def read(database: Database) -> QueueState:
    """Look now. Touches the jobs that have not ended, by their index, and the workers' few rows."""
    jobs = {(kind, status): 0 for kind in KINDS for status in ("queued", "running")}
    oldest_s = dict.fromkeys(KINDS, 0.0)
    workers = {(kind, state): 0 for kind in KINDS for state in ("ready", "not_ready")}
    async with database.read() as store:
        rows = await store.session.execute(
            select(Job.kind, Job.status, func.count(), func.min(Job.created_at))
            .where(Job.status.in_(("queued", "running")))
            .group_by(Job.kind, Job.status)
        )
        for kind, status, count, first in rows:
            jobs[kind, status] = count
            if status == "queued":
                oldest_s[kind] = max(0.0, seconds_since(first))
        seen = await store.session.execute(
            select(WorkerRow.kinds, WorkerRow.not_ready).where(
                WorkerRow.seen_at > in_seconds(-_SEEN.total_seconds())
            )
        )
        for kinds, not_ready in seen:
            for kind in kinds:
                state = "ready" if not_ready is None else "not_ready"
                workers[kind, state] = workers.get((kind, state), 0) + 1
    return QueueState(jobs, oldest_s, workers)


class QueueMetrics:
    """The queue as Prometheus sees it.

    One look serves everybody who asks within a second, and a look is given two seconds, so whoever
    may ask cannot make the database work.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = asyncio.Lock()
        self._looked_s = float("-inf")
        self._state: QueueState | None = None

    async def registry(self) -> CollectorRegistry:
        """The present numbers; without an answer of the database only that there is none."""
        async with self._turn:
            if time.monotonic() - self._looked_s >= _FRESH_S:
                try:
                    self._state = await in_time(read(self._database), _PATIENCE_S)
                except Exception:
                    self._state = None
                self._looked_s = time.monotonic()
        return _gauges(self._state)


def _gauges(state: QueueState | None) -> CollectorRegistry:
    registry = CollectorRegistry()
    up = Gauge("ppd_database_up", "Whether the database answered this scrape.", registry=registry)
    up.set(state is not None)
    if state is None:
        return registry
    jobs = Gauge("ppd_jobs", "Jobs that have not ended.", ("kind", "status"), registry=registry)
    oldest = Gauge(
        "ppd_oldest_queued_job_age_seconds",
        "Since when the oldest waiting job waits; 0 when none does.",
        ("kind",),
        registry=registry,
    )
    workers = Gauge(
        "ppd_workers",
        "Worker processes seen within a minute, by the kinds of job they take.",
        ("kind", "state"),
        registry=registry,
    )
    for (kind, status), count in state.jobs.items():
        jobs.labels(kind, status).set(count)
    for kind, age_s in state.oldest_s.items():
        oldest.labels(kind).set(age_s)
    for (kind, worker_state), count in state.workers.items():
        workers.labels(kind, worker_state).set(count)
    return registry
