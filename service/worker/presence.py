"""What a worker says of itself in the table of workers, so that others know it is there."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection

from service.core.fairness import Working
from service.core.ports import Versions
from service.infra.sql.database import Database
from service.infra.sql.tables import WorkerRow, now

log = logging.getLogger("ppd.worker")

_LATE = 16


class MeasuredPace:
    """How much of the model's time a step of a picture and a reading took, of late."""

    def __init__(self) -> None:
        self._steps: deque[tuple[int, float]] = deque(maxlen=_LATE)
        self._readings: deque[tuple[int, float]] = deque(maxlen=_LATE)

    def made(self, steps: int, worked_s: float) -> None:
        """Note a job of so many steps of pictures in all."""
        self._steps.append((steps, worked_s))

    def read(self, readings: int, worked_s: float) -> None:
        """Note a job of so many readings of four answers."""
        self._readings.append((readings, worked_s))

    def of(self, kinds: Collection[str], jobs_at_once: int) -> Working:
        """What a worker with this pace can say of itself."""
        return Working(
            kinds,
            jobs_at_once,
            step_s=_each_s(self._steps),
            reading_s=_each_s(self._readings),
        )


def _each_s(done: Collection[tuple[int, float]]) -> float | None:
    """Seconds of one, of jobs that were so many in so many seconds; None before any."""
    many = sum(count for count, _ in done)
    return sum(seconds for _, seconds in done) / many if many else None


class Presence:
    """One process's row: written every few seconds and at every change, deleted at the end."""

    def __init__(
        self,
        database: Database,
        worker_id: str,
        kinds: Collection[str],
        image_store: Callable[[], Awaitable[str]],
        jobs_at_once: int,
        pace: MeasuredPace,
    ) -> None:
        self._database = database
        self._image_store = image_store
        self._id = worker_id
        self._kinds = sorted(kinds)
        self._jobs_at_once = jobs_at_once
        self._pace = pace
        self._started_at = now()
        self._not_ready: str | None = "the model is being loaded"
        self._versions: Versions | None = None
        self._changed = asyncio.Event()

    def say(self, not_ready: str | None, versions: Versions | None = None) -> None:
        """Why it can run no job, or None; and what it has loaded."""
        self._not_ready, self._versions = not_ready, versions
        self._changed.set()

    async def forever(self, every_s: float) -> None:
        """Keep the row fresh until cancelled. What fails is logged, and tried again."""
        while True:
            self._changed.clear()
            try:
                await self.write()
            except Exception:
                log.exception("this worker could not say that it is there; it is tried again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), every_s)

    async def write(self) -> None:
        versions = self._versions
        try:
            image_store = await self._image_store()
        except OSError:  # readiness looks at the store itself
            image_store = None
        working = self._pace.of(self._kinds, self._jobs_at_once)
        row = WorkerRow(
            id=self._id,
            kinds=self._kinds,
            not_ready=self._not_ready,
            model=versions and versions.model,
            adapter_version=versions and versions.adapter_version,
            encoder_version=versions and versions.encoder_version,
            adapter_overrides=versions is not None and versions.adapter_overrides,
            image_store=image_store,
            jobs_at_once=working.jobs_at_once,
            step_s=working.step_s,
            reading_s=working.reading_s,
            started_at=self._started_at,
        )
        async with self._database.write() as store:
            await store.workers.put(row)

    async def leave(self) -> None:
        async with self._database.write() as store:
            await store.workers.remove(self._id)
