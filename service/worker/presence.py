"""What a worker says of itself in the table of workers, so that others know it is there."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection

from service.core.ports import Versions
from service.infra.sql.database import Database
from service.infra.sql.tables import WorkerRow, now

log = logging.getLogger("ppd.worker")


class Presence:
    """One process's row: written every few seconds and at every change, deleted at the end."""

    def __init__(
        self,
        database: Database,
        worker_id: str,
        kinds: Collection[str],
        image_store: Callable[[], Awaitable[str]],
    ) -> None:
        self._database = database
        self._image_store = image_store
        self._id = worker_id
        self._kinds = sorted(kinds)
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
        row = WorkerRow(
            id=self._id,
            kinds=self._kinds,
            not_ready=self._not_ready,
            model=versions and versions.model,
            adapter_version=versions and versions.adapter_version,
            encoder_version=versions and versions.encoder_version,
            adapter_overrides=versions is not None and versions.adapter_overrides,
            image_store=image_store,
            started_at=self._started_at,
        )
        async with self._database.write() as store:
            await store.workers.put(row)

    async def leave(self) -> None:
        async with self._database.write() as store:
            await store.workers.remove(self._id)
