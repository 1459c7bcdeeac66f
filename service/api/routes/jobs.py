"""Jobs: how they stand, what happens to them, and how to stop them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from service.actions.canceling import Ended, cancel, cancel_all, cancel_and_erase, cancel_nobodys
from service.actions.queue_places import Place
from service.api.deps import (
    BY_KEY_OR_SESSION,
    CallerDep,
    ProtectedRoute,
    ServicesDep,
    known_caller,
    read_by,
    services_of,
)
from service.api.http.cursors import decode_place, encode_place
from service.api.http.following import follow, follow_to_end
from service.api.http.strict_json import StrictRequest
from service.api.schemas import EndedJobsOut, ErasedJobsOut, ErrorOut, JobOut, JobsOut
from service.api.services import Services
from service.core.auth import USER_ID, Caller
from service.core.errors import CODES, ServiceError, invalid
from service.core.messages import TERMINAL, JobEvent, status_event
from service.infra.ending import abandon
from service.infra.sql.jobs.seen import JobSeen
from service.infra.sql.repositories.base import ID
from service.infra.sql.store import Store
from service.infra.sql.tables import Job

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=ProtectedRoute)

JobId = Annotated[str, Path(max_length=64)]
Erase = Annotated[bool, Query(description="Remove the jobs too, with the pictures that they made.")]
_UserId = Query(pattern=USER_ID, description="Whose jobs: those that are this person's alone.")
_RETRY_MS = 1000


@router.get("", response_model=JobsOut)
async def list_jobs(
    caller: CallerDep,
    services: ServicesDep,
    user_id: Annotated[str | None, _UserId] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=256)] = None,
) -> Response:
    """Jobs of the key's tenant, or of one person, newest first. A session sees its own person's."""
    before = decode_place(cursor)
    user_id = user_id if caller.own_user_id is None else user_id or caller.own_user_id
    async with services.database.read() as store:
        user_pk = None
        if user_id is not None:
            user = await store.users.find(caller.tenant, _allowed(caller, user_id))
            if user is None and not caller.is_session:
                raise ServiceError(404, "user_not_found")
            user_pk = user.pk if user is not None else ""
        found = await store.jobs.seen_page(caller.tenant, user_pk, before, limit + 1)
    page = found[:limit]
    following = encode_place(page[-1].created_at, page[-1].id) if len(found) > limit else None
    listed = [as_json(await shown(services, job)) for job in page]
    return JSONResponse({"results": listed, "next": following})


@router.delete("", response_model_exclude_none=True)
async def cancel_jobs(
    caller: CallerDep,
    services: ServicesDep,
    user_id: Annotated[str | None, _UserId] = None,
    nobody: Annotated[
        bool, Query(description="Those of the key's tenant that are in nobody's name and taste.")
    ] = False,
    erase: Erase = False,
) -> EndedJobsOut:
    """Cancel all jobs of a person that wait or run, readings of answers too; or those of nobody.

    With `erase` all pictures that were made for this person alone go, with their jobs. Answers,
    profiles and blends with others stay. Of nobody's a thousand go at a time: ask again until
    `erased.jobs` is 0.
    """
    if (user_id is None) is not nobody:
        raise invalid("", "query parameter user_id: names a person, or nobody=true is in its place")
    if user_id is None:
        if caller.is_session:
            raise ServiceError(404, "user_not_found")
        who = caller.audited_as
        return _ended(await cancel_nobodys(services, caller.tenant, erase=erase, who=who), erase)
    _allowed(caller, user_id)
    async with services.database.read() as store:
        known = await store.users.find(caller.tenant, user_id) is not None
    if not known and not caller.is_session:
        raise ServiceError(404, "user_not_found")
    who = caller.audited_as
    ended = await cancel_all(services, caller.tenant, user_id, erase=erase, who=who)
    return _ended(ended, erase)


def _allowed(caller: Caller, user_id: str) -> str:
    if not caller.may_use(user_id):
        raise ServiceError(404, "user_not_found")
    return user_id


def _ended(ended: Ended, erase: bool) -> EndedJobsOut:
    gone = ErasedJobsOut(jobs=len(ended.erased_jobs), images=len(ended.erased_images))
    return EndedJobsOut(canceled=ended.canceled, erased=gone if erase else None)


async def _read(request: StrictRequest) -> Response | None:
    job_id = request.path_params["job_id"]
    return await get_job(job_id, request) if ID.fullmatch(job_id) else None


@router.get(
    "/{job_id}",
    response_model=JobOut,
    response_model_exclude_none=True,
    openapi_extra=BY_KEY_OR_SESSION,
)
@read_by(_read)
async def get_job(job_id: JobId, request: Request) -> Response:
    """How a job stands."""
    services = services_of(request)
    job = await services.jobs.visible(known_caller(request), job_id)
    return written(await shown(services, job))


def written(job: JobOut, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The answer as it is sent; the framework would check once more what has just been checked."""
    if job.position is not None:
        return JSONResponse(as_json(job), status, headers)
    body = job.model_dump_json(exclude_none=True)
    return Response(body, status, headers, media_type="application/json")


def as_json(job: JobOut) -> dict[str, Any]:
    """A job without what it does not have; a guess that cannot be made is null."""
    shown = job.model_dump(mode="json", exclude_none=True)
    return shown | ({} if job.position is None else {"expected_wait_s": job.expected_wait_s})


@router.delete("/{job_id}", response_model_exclude_none=True)
async def cancel_job(
    job_id: JobId, caller: CallerDep, services: ServicesDep, erase: Erase = False
) -> JobOut | EndedJobsOut:
    """Cancel a job. One that has ended already stays as it is, unless it is to be erased."""
    if erase:
        ended = await cancel_and_erase(
            services, lambda store: _locked_job(store, caller, job_id), who=caller.audited_as
        )
        return _ended(ended, erase)
    job, _ = await cancel(services, lambda store: _locked_job(store, caller, job_id))
    return job_out(job)


async def _last_event_id(
    last_event_id: Annotated[
        str | None, Header(description="The id of the last event that was seen.")
    ] = None,
) -> int:
    """What was seen; what is no id of ours counts as nothing seen."""
    text = last_event_id or ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0


async def _followed_job(
    job_id: JobId,
    caller: CallerDep,
    services: ServicesDep,
    seen: Annotated[int, Depends(_last_event_id)],
) -> AsyncIterator[str]:
    """The id of a job that the caller may follow, with a place for the stream until it ends.

    Answers 204 to whoever has seen its end already: that keeps an EventSource from coming back.
    """
    found = await services.jobs.visible(caller, job_id)
    if found.status in TERMINAL and seen == found.seq:
        raise HTTPException(204)
    with services.streams.hold(caller.scope):
        yield found.id


@router.get(
    "/{job_id}/events",
    response_class=EventSourceResponse,
    responses={204: {"description": "The end was the last event that was seen."}},
)
async def job_events(
    job_id: Annotated[str, Depends(_followed_job)],
    services: ServicesDep,
    seen: Annotated[int, Depends(_last_event_id)],
) -> AsyncIterator[ServerSentEvent]:
    """Follow a job until it ends: `status`, `step` with step and steps, and `preview` events.

    While it waits, `queue` events say its `position` and `expected_wait_s` when they change; they
    have no id either.

    A `preview` shows the picture number `index` of the job while it is made: `image` is a small
    JPEG as a data: URL, of 10 KiB at most, made around `step`. Previews have no id, are not sent
    again to those who come back, and may be missing.

    Starts with the present state, unless Last-Event-ID names an event that is remembered: then
    with what followed it.
    """
    newest = await services.events.latest(job_id)
    after = seen if newest is not None and seen <= newest.seq else 0
    async with services.events.subscribe(job_id, after) as stream:
        async with services.database.read() as store:
            job = await store.jobs.get(job_id)
        if job is None:
            return
        told = None
        if job.status in TERMINAL or seen == 0 or after == 0:
            place = await services.places.of(job_id) if job.status == "queued" else None
            told = None if place is None else asdict(place)
            first = status_event(job.seq, job.status)  # type: ignore[arg-type]
            yield _sse(first, job_out(job, first, place), retry=True)
            after = max(after, job.seq)
        if job.status in TERMINAL:
            return

        async def place_now() -> dict[str, Any] | None:
            now = await services.places.of(job_id)
            return None if now is None else asdict(now)

        async for event in follow(services.database, job_id, stream, after, place_now, told):
            if event.terminal:
                async with services.database.read() as store:
                    job = await store.jobs.get(job_id)
                if job is None:
                    return
            yield _sse(event, job_out(job, event))


def _sse(event: JobEvent, job: JobOut, *, retry: bool = False) -> ServerSentEvent:
    data = dict(event.data)
    if event.kind == "status":
        data = {**as_json(job), **data}
    return ServerSentEvent(
        data=data,
        event=event.kind,
        id=str(event.seq) if event.remembered else None,
        retry=_RETRY_MS if retry else None,
    )


async def _locked_job(store: Store, caller: Caller, job_id: str) -> Job:
    """The caller's job, as nobody changes it now; 404 for everybody else's."""
    job = await store.jobs.find(caller.tenant, job_id, lock=True)
    if job is not None and caller.own_user_id is not None:
        user = await store.users.find(caller.tenant, caller.own_user_id)
        if user is None or job.user_pk != user.pk:
            job = None
    if job is None:
        raise ServiceError(404, "job_not_found")
    return job


async def wait_if_asked(
    request: Request, response: Response, caller: Caller, job_id: str, wait_s: float
) -> bool:
    """Whether it was waited: not where too many wait already, by RFC 7240 a preference."""
    services = services_of(request)
    try:
        with services.waits.hold(caller.scope):
            response.headers["Preference-Applied"] = f"wait={wait_s:.0f}"
            await wait_for_end(request, job_id, wait_s)
    except ServiceError as refusal:
        if refusal.code not in ("streams_full", "too_many_streams"):
            raise
        return False
    return True


async def wait_for_end(request: Request, job_id: str, timeout_s: float) -> None:
    """Return when the job has ended, after `timeout_s`, or when the client has gone."""
    services = services_of(request)
    following = asyncio.create_task(_follow_to_end(services, job_id))
    gone = asyncio.create_task(_client_goes(request))
    try:
        await asyncio.wait(
            (following, gone), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if following.done():
            following.result()
    finally:
        abandon(following, gone)


async def _follow_to_end(services: Services, job_id: str) -> None:
    async with aclosing(follow_to_end(services.database, services.events, job_id)) as events:
        async for _ in events:
            pass


async def _client_goes(request: Request) -> None:
    """Return when the connection ends; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def shown(services: Services, job: Job | JobSeen) -> JobOut:
    """A job as clients see it, with how far it has come."""
    newest = await services.events.latest(job.id) if job.status == "running" else None
    place = await services.places.of(job.id) if job.status == "queued" else None
    return job_out(job, newest, place)


def job_out(
    job: Job | JobSeen, newest: JobEvent | None = None, place: Place | None = None
) -> JobOut:
    """A job as clients see it; `newest` is what was last said about it."""
    progress = None
    if newest is not None and newest.kind == "step":
        progress = {"step": newest.data["step"], "steps": newest.data["steps"]}
    error = None
    if job.error_code is not None:
        error = ErrorOut(
            code=job.error_code, detail=job.error_detail or CODES.get(job.error_code, "")
        )
    elif job.status == "canceled":
        error = ErrorOut(code="canceled", detail=CODES["canceled"])
    return JobOut(
        id=job.id,
        kind=job.kind,  # type: ignore[arg-type]
        status=job.status,  # type: ignore[arg-type]
        seq=max(job.seq, newest.seq if newest is not None else 0),
        created_at=job.created_at,
        position=None if place is None else place.position,
        expected_wait_s=None if place is None else place.expected_wait_s,
        progress=progress,
        result=told_result(job),
        error=error,
        links=job_links(job.id),
    )


def told_result(job: Job | JobSeen) -> dict[str, Any] | None:
    """What came of a job, and of pictures that a model made them: also of those kept for long."""
    if job.result is None or job.kind != "generate":
        return job.result
    return {**job.result, "ai_generated": True}


def job_links(job_id: str) -> dict[str, str]:
    """Where a job can be seen, followed and (by DELETE) canceled."""
    return {
        "self": f"/jobs/{job_id}",
        "events": f"/jobs/{job_id}/events",
        "cancel": f"/jobs/{job_id}",
    }
