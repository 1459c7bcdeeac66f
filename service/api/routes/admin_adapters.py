"""Which adapters are in service, for admins: of those that were checked and are kept already.

A new one comes by `ppd adapters add`, where the models are that it is checked against.
"""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from service.api.deps import AdminRoute, CallerDep, ServicesDep
from service.api.idempotency import Accepted, OnceDep
from service.api.schemas import Body
from service.api.services import Services
from service.core.errors import ServiceError
from service.infra.sql.store import Store

router = APIRouter(prefix="/admin/adapters", tags=["admin"], route_class=AdminRoute)


class ShareIn(Body):
    """The part of people whom an adapter is to serve."""

    share: Annotated[float, Field(gt=0, lt=1)]


class AdapterOut(BaseModel):
    """A kept adapter, and the part of people whom it serves."""

    version: str
    active: bool
    share: float
    sha256: str
    base_model: str
    encoder_id: str
    size_bytes: int
    created_at: datetime


class AdaptersOut(BaseModel):
    """The version that new jobs are pinned to, null for the shipped adapter, and all that are kept.

    Where another serves a share of people, `trial` is its version, and `share` that part of them.
    A worker that was started with PPD_ADAPTER serves that file instead; its results say so.
    """

    active: str | None
    trial: str | None
    share: float | None
    results: list[AdapterOut]


Version = Annotated[str, Path(pattern=r"^[0-9a-f]{12}$", description="An adapter's version.")]


@router.get("")
async def list_adapters(caller: CallerDep, services: ServicesDep) -> AdaptersOut:
    """The adapters that are kept, and which one new jobs are made with."""
    return await _shown(services)


@router.post("/rollback")
async def rollback(caller: CallerDep, services: ServicesDep, once: OnceDep) -> AdaptersOut:
    """Serve what was served before; done again, what was before that."""

    async def work(store: Store) -> Accepted:
        back = await store.adapters.rollback()
        if back is None:
            raise ServiceError(409, "no_earlier_adapter")
        for version in back.versions:
            await _refuse_misfit(store, version)
        of = f"adapter:{back.first or 'shipped'}"
        await store.audit.note(caller.audited_as, "adapter.rolled_back", of, **back.told)
        return Accepted({"adapter_version": back.first})

    await once.do(work)
    return await _shown(services)


@router.post("/withdraw")
async def withdraw(caller: CallerDep, services: ServicesDep, once: OnceDep) -> AdaptersOut:
    """Serve nobody the trial from the next job on: everybody is served the first adapter again."""

    async def work(store: Store) -> Accepted:
        trial = await store.adapters.withdraw()
        if trial is not None:
            await store.audit.note(caller.audited_as, "adapter.withdrawn", f"adapter:{trial}")
        return Accepted({"adapter_version": trial})

    await once.do(work)
    return await _shown(services)


@router.post("/deactivate")
async def deactivate(caller: CallerDep, services: ServicesDep, once: OnceDep) -> AdaptersOut:
    """Serve everybody the shipped adapter from the next job on."""

    async def work(store: Store) -> Accepted:
        if await store.adapters.deactivate():
            await store.audit.note(caller.audited_as, "adapter.deactivated", "adapter:shipped")
        return Accepted({"adapter_version": None})

    await once.do(work)
    return await _shown(services)


@router.post("/{version}/share")
async def share(
    version: Version, body: ShareIn, caller: CallerDep, services: ServicesDep, once: OnceDep
) -> AdaptersOut:
    """Serve a share of people a kept adapter from the next job on, in the place of a trial before.

    Who falls in the share stays in it, and as it grows; everybody else is served the first adapter.
    Activating the trial ends it and serves it to everybody; `withdraw` ends it otherwise.
    """

    async def work(store: Store) -> Accepted:
        try:
            if not await store.adapters.activate(version, body.share):
                raise ServiceError(404, "adapter_not_found")
        except ValueError as error:
            raise ServiceError(409, "adapter_refused", f"{error}.") from error
        await _refuse_misfit(store, version)
        of = f"adapter:{version}"
        await store.audit.note(caller.audited_as, "adapter.shared", of, share=body.share)
        return Accepted({"adapter_version": version})

    await once.do(work)
    return await _shown(services)


@router.post("/{version}/activate")
async def activate(
    version: Version, caller: CallerDep, services: ServicesDep, once: OnceDep
) -> AdaptersOut:
    """Serve everybody a kept adapter from the next job on.

    Waiting jobs keep the one that they came with.
    """

    async def work(store: Store) -> Accepted:
        if not await store.adapters.activate(version):
            raise ServiceError(404, "adapter_not_found")
        await _refuse_misfit(store, version)
        await store.audit.note(caller.audited_as, "adapter.activated", f"adapter:{version}")
        return Accepted({"adapter_version": version})

    await once.do(work)
    return await _shown(services)


async def _refuse_misfit(store: Store, version: str) -> None:
    """Raise 409, which undoes the transaction, where a running worker could not use it."""
    adapter = await store.adapters.get(version)
    assert adapter is not None
    misfit = await store.adapters.misfit(adapter)
    if misfit is not None:
        raise ServiceError(409, "adapter_refused", misfit)


async def _shown(services: Services) -> AdaptersOut:
    async with services.database.read() as store:
        serving, rows = await store.adapters.serving(), await store.adapters.all()
    return AdaptersOut(
        active=serving.first,
        trial=serving.trial,
        share=serving.share if serving.trial is not None else None,
        results=[
            AdapterOut(
                active=row.version == serving.first,
                share=serving.share_of(row.version),
                **row.columns("version", "sha256", "base_model", "encoder_id"),
                **row.columns("size_bytes", "created_at"),
            )
            for row in rows
        ],
    )
