"""Adapters that are kept, and the history of which was in service."""

from collections.abc import Sequence

from sqlalchemy import delete, func, select, text
from sqlalchemy.exc import IntegrityError

from service.infra.sql.clock import in_seconds
from service.infra.sql.repositories.base import Repository, is_sqlite
from service.infra.sql.tables import Adapter, AdapterActivation, Job, WorkerRow

_WORKER_IS_GONE_AFTER_S = 120.0

ACTIVE_ADAPTER = (
    select(AdapterActivation.version)
    .order_by(AdapterActivation.pk.desc())
    .limit(1)
    .scalar_subquery()
)
"""The version of the adapter in service, for an INSERT to write: it costs no query of its own.

The row must be read again to know it.
"""


class Adapters(Repository):
    """Adapters that are kept, and which of them is in service; None is the one shipped."""

    async def get(self, version: str) -> Adapter | None:
        return await self._session.get(Adapter, version)

    async def all(self) -> Sequence[Adapter]:
        """Every kept adapter, oldest first."""
        return await self._all(select(Adapter).order_by(Adapter.created_at, Adapter.version))

    async def add(self, adapter: Adapter) -> Adapter:
        """Keep an adapter whose bytes are in the image store; gives the row of an earlier time."""
        kept = await self.get(adapter.version)
        if kept is not None:
            return kept
        try:
            async with self._session.begin_nested():
                self._session.add(adapter)
        except IntegrityError:  # another process has kept it meanwhile
            return await self._session.get_one(Adapter, adapter.version)
        return adapter

    async def active(self) -> str | None:
        return await self._session.scalar(select(ACTIVE_ADAPTER))

    async def activate(self, version: str) -> bool:
        """Serve a kept adapter from the next job on; false when it is not kept."""
        if await self._session.get(Adapter, version, with_for_update=True) is None:
            return False
        if await self.active() != version:
            await self._serve(version, back_to=None)
        return True

    async def deactivate(self) -> bool:
        """Serve the shipped adapter from the next job on; false when it is in service already."""
        if await self.active() is None:
            return False
        await self._serve(None, back_to=None)
        return True

    async def rollback(self) -> AdapterActivation | None:
        """Serve what was served before, and done again what was before that; None at the end."""
        newest = await self._newest_before(None)
        place = 0 if newest is None else _place(newest)
        while place and newest is not None:
            earlier = await self._newest_before(place)
            place = 0 if earlier is None else _place(earlier)
            version = None if earlier is None else earlier.version
            if version != newest.version:
                return await self._serve(version, back_to=place)
        return None

    async def remove(self, version: str) -> str:
        """Forget an adapter; gives the key of its bytes.

        Raises ValueError for one that is not kept, is in service, or is what an unfinished job is
        pinned to.
        """
        adapter = await self._session.get(Adapter, version, with_for_update=True)
        if adapter is None:
            raise ValueError(f"no adapter {version} is kept here")
        if not is_sqlite(self._session):  # jobs on their way are seen
            await self._session.execute(text("LOCK TABLE jobs IN SHARE MODE"))
        if await self.active() == version:
            raise ValueError(f"adapter {version} is in service: activate another one first")
        pinned = await self._session.scalar(
            select(func.count()).where(
                Job.adapter_version == version, Job.status.in_(("queued", "running"))
            )
        )
        if pinned:
            raise ValueError(f"{pinned} unfinished jobs are pinned to adapter {version}")
        await self._changed(delete(AdapterActivation).where(AdapterActivation.version == version))
        await self._session.delete(adapter)
        await self._session.flush()
        return adapter.key

    async def misfit(self, adapter: Adapter) -> str | None:
        """Why a worker that was seen lately could not use it; None when none says so."""
        workers = await self._session.scalars(
            select(WorkerRow).where(WorkerRow.seen_at > in_seconds(-_WORKER_IS_GONE_AFTER_S))
        )
        for worker in workers:
            why = misfit(adapter, (worker.model or "").rpartition("@")[0], worker.encoder_version)
            if why is not None:
                return why
        return None

    async def _newest_before(self, place: int | None) -> AdapterActivation | None:
        statement = select(AdapterActivation).order_by(AdapterActivation.pk.desc()).limit(1)
        if place is not None:
            statement = statement.where(AdapterActivation.pk < place)
        return await self._session.scalar(statement)

    async def _serve(self, version: str | None, *, back_to: int | None) -> AdapterActivation:
        row = AdapterActivation(version=version, back_to=back_to)
        self._session.add(row)
        await self._session.flush()
        return row


def _place(activation: AdapterActivation) -> int:
    """Where in the history of activations this one leaves the service."""
    return activation.pk if activation.back_to is None else activation.back_to


def misfit(adapter: Adapter, base_model: str, encoder_id: str | None) -> str | None:
    """Why these models could not use it, with both ids; None when they can, or nothing is known."""
    for what, found, expected in (
        ("base model", adapter.base_model, base_model),
        ("user encoder", adapter.encoder_id, encoder_id),
    ):
        if expected and found != expected:
            return (
                f"adapter {adapter.version}: {what} is {found!r}, expected {expected!r}. An "
                f"adapter changes while the service runs; another {what} needs a restart with it"
            )
    return None
