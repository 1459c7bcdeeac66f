"""Reports of pictures: anybody reports one that they can see, an operator decides."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from service.actions.moderating import dismiss, settle, take_down_reported
from service.api.deps import AdminRoute, CallerDep, ProtectedRoute, ServicesDep
from service.api.http.cursors import decode_place, encode_place
from service.api.idempotency import Accepted, OnceDep
from service.api.image_lookup import seen_image
from service.api.routes.images import PICTURE, picture
from service.api.schemas import Body, NotBlank
from service.api.services import Services
from service.core.errors import ServiceError
from service.infra.sql.store import Store
from service.infra.sql.tables import Report

router = APIRouter(tags=["reports"])
_for_all = APIRouter(route_class=ProtectedRoute)
_for_admins = APIRouter(prefix="/admin/reports", route_class=AdminRoute)

ReportId = Annotated[str, Path(max_length=64)]
Status = Literal["open", "dismissed", "taken_down"]


class ReportIn(Body):
    """Which picture, and what is wrong with it."""

    image_id: Annotated[str, Field(min_length=1, max_length=64)]
    reason: Annotated[str, Field(min_length=1, max_length=1000), NotBlank]


class ReportOut(BaseModel):
    """A report, as whoever sent it sees it."""

    id: str
    image_id: str
    reason: str
    status: Status
    created_at: datetime
    decided_at: datetime | None


class AdminReportOut(ReportOut):
    """The same for operators. `picture` is where they see it, null once it is gone."""

    tenant: str
    job_id: str | None
    reported_by: str
    picture: str | None


class AdminReportsOut(BaseModel):
    """A page of reports, newest first."""

    results: list[AdminReportOut]
    next: str | None


@_for_all.post("/reports", status_code=201)
async def report_picture(
    body: ReportIn, caller: CallerDep, services: ServicesDep, once: OnceDep
) -> ReportOut:
    """Report a picture that one may see. Until it is decided on, another one is the same report."""

    async def work(store: Store) -> Accepted:
        image = await seen_image(store, caller, body.image_id)
        report = await store.reports.open(image, body.reason, caller.audited_as)
        return Accepted({"report_id": report.id}, user_pk=report.user_pk, job_id=report.job_id)

    accepted = await once.do(work)
    async with services.database.read() as store:
        report = await store.reports.get(accepted["report_id"])
    if report is None:
        raise ServiceError(404, "image_not_found")  # erased meanwhile
    return ReportOut.model_validate(_columns(report))


@_for_admins.get("")
async def list_reports(
    caller: CallerDep,
    services: ServicesDep,
    status: Status | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=256)] = None,
) -> AdminReportsOut:
    """Reports of every tenant, newest first."""
    before = decode_place(cursor)
    async with services.database.read() as store:
        found = await store.reports.page(status, before, limit + 1)
    page = found[:limit]
    following = encode_place(page[-1].created_at, page[-1].id) if len(found) > limit else None
    return AdminReportsOut(results=[_for_admin(report) for report in page], next=following)


@_for_admins.get("/{report_id}/picture", response_class=Response, responses=PICTURE)
async def reported_picture(
    report_id: ReportId, request: Request, caller: CallerDep, services: ServicesDep
) -> Response:
    """The picture that a report is about."""
    async with services.database.read() as store:
        report = await store.reports.get(report_id)
        if report is None:
            raise ServiceError(404, "report_not_found")
        image = await store.images.get(report.image_id)
    if image is None:
        raise ServiceError(404, "image_not_found")
    return await picture(services, image, request, max_age_s=0)


@_for_admins.post("/{report_id}/dismiss")
async def dismiss_report(
    report_id: ReportId, caller: CallerDep, services: ServicesDep, once: OnceDep
) -> AdminReportOut:
    """Let the picture stay."""

    async def work(store: Store) -> Accepted:
        return Accepted({"report_id": (await dismiss(store, report_id, caller.audited_as)).id})

    return await _decided(services, await once.do(work))


@_for_admins.post("/{report_id}/takedown")
async def take_picture_down(
    report_id: ReportId, caller: CallerDep, services: ServicesDep, once: OnceDep
) -> AdminReportOut:
    """Take the picture away for good, bytes too. All reports of it are decided with that."""
    keys: list[str] = []

    async def work(store: Store) -> Accepted:
        keys.extend(await take_down_reported(store, report_id, caller.audited_as))
        return Accepted({"report_id": report_id})

    accepted = await once.do(work)
    await settle(services, keys)
    return await _decided(services, accepted)


async def _decided(services: Services, accepted: dict[str, Any]) -> AdminReportOut:
    async with services.database.read() as store:
        report = await store.reports.get(accepted["report_id"])
    if report is None:
        raise ServiceError(404, "report_not_found")  # erased meanwhile
    return _for_admin(report)


def _for_admin(report: Report) -> AdminReportOut:
    there = report.status != "taken_down"
    return AdminReportOut(
        **_columns(report),
        **report.columns("tenant", "job_id", "reported_by"),
        picture=f"/admin/reports/{report.id}/picture" if there else None,
    )


def _columns(report: Report) -> dict[str, Any]:
    return report.columns("id", "image_id", "reason", "status", "created_at", "decided_at")


router.include_router(_for_all)
router.include_router(_for_admins)
