"""Whether workers on other machines take every kind of job, as the table of workers says."""

import time
from collections.abc import Awaitable, Callable, Collection

from redis.exceptions import ResponseError

from service.core.fairness import Working
from service.core.ports import Versions
from service.infra.sql.database import Database
from service.infra.sql.tables import WorkerRow


async def elsewhere(
    seen: Collection[WorkerRow], image_store: Callable[[], Awaitable[str]]
) -> list[str]:
    """Those workers whose image store is not ours, as folders of their own are not.

    Raises OSError when ours does not answer.
    """
    ours = await image_store() if seen else None
    return [row.id for row in seen if row.image_store not in (None, ours)]


class RemoteWorkers:
    """The workers as an API replica sees them.

    `ask_redis` raises when Redis does not answer, or takes no writes. That alone makes nothing
    unready: embeddings come from the database then, cancellations with the lease, and whoever
    follows a job looks at its row.
    """

    def __init__(
        self,
        database: Database,
        kinds: Collection[str],
        gone_after_s: float,
        ask_redis: Callable[[], Awaitable[object]],
        image_store: Callable[[], Awaitable[str]],
    ) -> None:
        self._database = database
        self._kinds = kinds
        self._gone_after_s = gone_after_s
        self._ask_redis = ask_redis
        self._image_store = image_store
        self._encoder: str | None = None
        self._versions: Versions | None = None
        self._known_until_s = 0.0

    async def why_not_ready(self) -> str | None:
        """The first kind that nobody runs, and why; None when all are taken."""
        try:
            async with self._database.read() as store:
                seen = await store.workers.seen(self._gone_after_s)
        except Exception as error:
            return f"the database does not answer: {type(error).__name__}"
        try:
            strays = await elsewhere(seen, self._image_store)
        except OSError as error:
            return f"the image store does not answer: {error}"
        if strays:
            return f"{', '.join(strays)} keeps pictures in another place than this process does"
        for kind in self._kinds:
            takers = [row for row in seen if kind in row.kinds]
            if not takers:
                return f"no worker takes {kind} jobs"
            if all(row.not_ready for row in takers):
                return f"no worker takes {kind} jobs yet: {takers[-1].not_ready}"
        return None

    async def encoder_version(self) -> str | None:
        """What the workers that read choices have loaded; None while they differ, or are none.

        Looked up now and then only: it is asked with every answer to a pair.
        """
        await self._look()
        return self._encoder

    async def versions(self) -> Versions | None:
        """What the workers that make pictures have loaded; None while they differ, or are none."""
        await self._look()
        return self._versions

    async def working(self) -> list[Working]:
        """Those that run jobs now, and how fast they are."""
        async with self._database.read() as store:
            seen = await store.workers.seen(self._gone_after_s)
        return [
            Working(tuple(row.kinds), row.jobs_at_once, row.step_s, row.reading_s)
            for row in seen
            if row.not_ready is None
        ]

    async def _look(self) -> None:
        if time.monotonic() < self._known_until_s:
            return
        async with self._database.read() as store:
            seen = await store.workers.seen(self._gone_after_s)
        encoders = {row.encoder_version for row in seen if "encode" in row.kinds}
        self._encoder = encoders.pop() if len(encoders) == 1 else None
        found = {
            (row.model, row.adapter_version, row.encoder_version, row.adapter_overrides)
            for row in seen
            if "generate" in row.kinds
        }
        model, adapter, encoder, overrides = found.pop() if len(found) == 1 else (None,) * 4
        self._versions = None
        if model is not None and encoder is not None:
            self._versions = Versions(model, adapter, encoder, bool(overrides))
        self._known_until_s = time.monotonic() + self._gone_after_s / 3

    async def impaired(self) -> str | None:
        try:
            await self._ask_redis()
        except ResponseError as error:
            return f"Redis takes no writes: {error}"
        except Exception as error:
            return f"Redis does not answer: {type(error).__name__}"
        return None
