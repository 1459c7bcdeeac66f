"""Whether workers on other machines take every kind of job, as the table of workers says."""

from collections.abc import Awaitable, Callable, Collection

from service.infra.database import Database


class RemoteWorkers:
    """The workers as an API replica sees them.

    `ping` raises when Redis does not answer. That alone makes nothing unready: embeddings come from
    the database then, cancellations with the lease, and whoever follows a job looks at its row.
    """

    def __init__(
        self,
        database: Database,
        kinds: Collection[str],
        gone_after_s: float,
        ping: Callable[[], Awaitable[object]],
    ) -> None:
        self._database = database
        self._kinds = kinds
        self._gone_after_s = gone_after_s
        self._ping = ping

    async def why_not_ready(self) -> str | None:
        """The first kind that nobody runs, and why; None when all are taken."""
        try:
            async with self._database.read() as store:
                seen = await store.workers.seen(self._gone_after_s)
        except Exception as error:
            return f"the database does not answer: {type(error).__name__}"
        for kind in self._kinds:
            takers = [row for row in seen if kind in row.kinds]
            if not takers:
                return f"no worker takes {kind} jobs"
            if all(row.not_ready for row in takers):
                return f"no worker takes {kind} jobs yet: {takers[-1].not_ready}"
        return None

    async def impaired(self) -> str | None:
        """Says when Redis is away."""
        try:
            await self._ping()
        except Exception as error:
            return f"Redis does not answer: {type(error).__name__}"
        return None
