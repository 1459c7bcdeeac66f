"""Adapters that are kept, and the history of which were in service."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import delete, func, or_, select, text
from sqlalchemy.exc import IntegrityError

from service.core.proof.serving import Serving, Share
from service.infra.sql.clock import in_seconds
from service.infra.sql.repositories.base import Repository, is_sqlite
from service.infra.sql.tables import Adapter, AdapterActivation, Job, WorkerRow

_WORKER_IS_GONE_AFTER_S = 120.0

_NEWEST_FIRST = AdapterActivation.pk.desc()
_IN_SERVICE = (
    select(AdapterActivation.version, AdapterActivation.trial_version, AdapterActivation.share)
    .order_by(_NEWEST_FIRST)
    .limit(1)
)
FIRST_ADAPTER = select(AdapterActivation.version).order_by(_NEWEST_FIRST).limit(1).scalar_subquery()
TRIAL_ADAPTER = (
    select(AdapterActivation.trial_version).order_by(_NEWEST_FIRST).limit(1).scalar_subquery()
)
"""The versions in service, for an INSERT to write or to compare: what it writes is in service when
it is written. The row must be read again to know it."""


class Adapters(Repository):
    """Adapters that are kept, and which of them are in service; None is the one shipped."""

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

    async def serving(self) -> Serving:
        """What is in service, and whom it serves."""
        row = (await self._session.execute(_IN_SERVICE)).one_or_none()
        return Serving(None) if row is None else Serving(*row)

    async def last_share(self) -> Share | None:
        """The newest time that two adapters served side by side, whatever the share was."""
        steps: list[tuple[datetime, Serving]] = []
        until = after = None
        for row in await self._all(select(AdapterActivation).order_by(_NEWEST_FIRST)):
            state = _state(row)
            if not steps:
                if state.trial is not None:
                    steps, until = [(row.activated_at, state)], after
            elif replace(state, share=steps[0][1].share) == steps[0][1]:
                steps.insert(0, (row.activated_at, state))
            else:
                break
            after = row.activated_at
        return Share(tuple(steps), until) if steps else None

    async def activate(self, version: str, share: float | None = None) -> bool:
        """Serve a kept adapter from the next job on; false when it is not kept.

        With a `share`, in (0, 1), it serves that share of people as a trial, in the place of an
        earlier trial; without, everybody. Raises ValueError where it is to be a trial of itself.
        """
        await self._alone()
        if await self._session.get(Adapter, version, with_for_update=True) is None:
            return False
        wanted = Serving(version)
        if share is not None:
            first = (await self.serving()).first
            if first == version:
                raise ValueError(f"adapter {version} serves everybody: a share needs another one")
            wanted = Serving(first, version, share)
        await self._serve_if_new(wanted)
        return True

    async def withdraw(self) -> str | None:
        """Serve nobody the trial from the next job on; gives what it was, None if there is none."""
        await self._alone()
        serving = await self.serving()
        if serving.trial is not None:
            await self._serve(Serving(serving.first), back_to=None)
        return serving.trial

    async def deactivate(self) -> bool:
        """Serve all the shipped adapter from the next job on; false when they are served it now."""
        await self._alone()
        return await self._serve_if_new(Serving(None))

    async def rollback(self) -> Serving | None:
        """Serve what was served before, and done again what was before that; None at the end."""
        await self._alone()
        newest = await self._newest_before(None)
        place = 0 if newest is None else _place(newest)
        while place and newest is not None:
            earlier = await self._newest_before(place)
            place = 0 if earlier is None else _place(earlier)
            state = Serving(None) if earlier is None else _state(earlier)
            if state != _state(newest):
                await self._serve(state, back_to=place)
                return state
        return None

    async def remove(self, version: str) -> str:
        """Forget an adapter; gives the key of its bytes.

        Raises ValueError for one that is not kept, is in service, or is what an unfinished job is
        pinned to.
        """
        await self._alone()
        adapter = await self._session.get(Adapter, version, with_for_update=True)
        if adapter is None:
            raise ValueError(f"no adapter {version} is kept here")
        if not is_sqlite(self._session):  # jobs on their way are seen
            await self._session.execute(text("LOCK TABLE jobs IN SHARE MODE"))
        serving = await self.serving()
        if version == serving.trial:
            raise ValueError(f"adapter {version} serves a share of people: withdraw it first")
        if version == serving.first:
            raise ValueError(f"adapter {version} is in service: activate another one first")
        pinned = await self._session.scalar(
            select(func.count()).where(
                Job.adapter_version == version, Job.status.in_(("queued", "running"))
            )
        )
        if pinned:
            raise ValueError(f"{pinned} unfinished jobs are pinned to adapter {version}")
        its = or_(AdapterActivation.version == version, AdapterActivation.trial_version == version)
        await self._changed(delete(AdapterActivation).where(its))
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
        statement = select(AdapterActivation).order_by(_NEWEST_FIRST).limit(1)
        if place is not None:
            statement = statement.where(AdapterActivation.pk < place)
        return await self._session.scalar(statement)

    async def _alone(self) -> None:
        """Nobody else changes what is in service until the end; first of all locks."""
        if not is_sqlite(self._session):
            await self._session.execute(
                text("LOCK TABLE adapter_activations IN SHARE ROW EXCLUSIVE MODE")
            )

    async def _serve_if_new(self, wanted: Serving) -> bool:
        if await self.serving() == wanted:
            return False
        await self._serve(wanted, back_to=None)
        return True

    async def _serve(self, wanted: Serving, *, back_to: int | None) -> None:
        row = AdapterActivation(
            version=wanted.first,
            trial_version=wanted.trial,
            share=wanted.share,
            back_to=back_to,
        )
        self._session.add(row)
        await self._session.flush()


def _state(activation: AdapterActivation) -> Serving:
    return Serving(activation.version, activation.trial_version, activation.share)


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
