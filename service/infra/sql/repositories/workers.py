"""The processes that run jobs, as they last said."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete, select

from service.infra.sql.clock import in_seconds, present
from service.infra.sql.repositories.base import Repository
from service.infra.sql.tables import WorkerRow


class Workers(Repository):
    """The processes that run jobs, as they last said."""

    async def put(self, row: WorkerRow) -> None:
        row.seen_at = present()
        await self._session.merge(row)
        await self._session.flush()

    async def seen(self, within_s: float) -> Sequence[WorkerRow]:
        """Those that spoke within so many seconds, oldest first."""
        lately = select(WorkerRow).where(WorkerRow.seen_at >= in_seconds(-within_s))
        return await self._all(lately.order_by(WorkerRow.started_at))

    async def remove(self, worker_id: str) -> None:
        await self._session.execute(delete(WorkerRow).where(WorkerRow.id == worker_id))

    async def prune(self, silent_for: timedelta) -> int:
        """Forget those that have not spoken for so long."""
        since = in_seconds(-silent_for.total_seconds())
        return await self._changed(delete(WorkerRow).where(WorkerRow.seen_at < since))
