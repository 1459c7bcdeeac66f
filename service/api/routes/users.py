"""Everything held about a person: to see, to take along, to erase."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from service.actions.erasure import erase_person
from service.actions.export import export_person
from service.api.deps import CallerDep, ProtectedRoute, ServicesDep, UserIdDep, end_session
from service.api.http.cursors import decode_place, encode_place
from service.api.routes.choices import found_user
from service.api.schemas import (
    ContributionIn,
    ContributionOut,
    ErasedOut,
    GalleryImageOut,
    GalleryOut,
)
from service.core.errors import ServiceError
from service.infra.sql.oversight.audit import What
from service.infra.sql.tables import Image, Job, now

router = APIRouter(prefix="/users/{user_id}", tags=["users"], route_class=ProtectedRoute)


@router.get("/images")
async def gallery(
    user_id: UserIdDep,
    caller: CallerDep,
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=256)] = None,
) -> GalleryOut:
    """Pictures that were made for this person, newest first."""
    before = decode_place(cursor)
    async with services.database.read() as store:
        user = await store.users.find(caller.tenant, user_id)
        if user is None and not caller.is_session:
            raise ServiceError(404, "user_not_found")
        found = await store.images.page(user.pk, before, limit + 1) if user is not None else []
    page = list(found[:limit])
    following = None
    if len(found) > limit:
        last = page[-1][0]
        following = encode_place(last.created_at, last.id)
    return GalleryOut(results=[_gallery_image(*row) for row in page], next=following)


@router.put("/contribution")
async def contribute(
    user_id: UserIdDep, body: ContributionIn, caller: CallerDep, services: ServicesDep
) -> ContributionOut:
    """Give this person's answers, earlier ones too, for training, or no longer. Off by default.

    Who asked for it sees to it that the person decides. Turned off, no further export has the
    person's answers, and each folder that has them names what is to be removed, by a random number.
    """
    async with services.database.write() as store:
        user = await store.users.get_or_create(caller.tenant, user_id, alone=True, lane=caller.lane)
        if body.contribute != (user.contributes_since is not None):
            since = now() if body.contribute else None
            for taste in await store.users.tastes_of(user.pk):  # each is a person of the export
                taste.contributes_since = since
            what: What = "person.contributes" if body.contribute else "person.withdrew"
            await store.audit.note(caller.audited_as, what, f"person:{user.pk}", caller.tenant)
    return ContributionOut(
        user_id=user_id, contribute=body.contribute, since=user.contributes_since
    )


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
)
async def export(user_id: UserIdDep, caller: CallerDep, services: ServicesDep) -> StreamingResponse:
    """Everything held about this person. Pictures are named by URL, with their SHA-256.

    Blends that used the person's taste are in it; the others who were in them are not named.
    """
    async with services.database.read(snapshot=True) as store:
        user = await found_user(store, caller, user_id)
    headers = {"Cache-Control": "private, no-store"}
    pieces = export_person(services, user)
    return StreamingResponse(pieces, media_type="application/json", headers=headers)


@router.delete("")
async def erase(
    user_id: UserIdDep,
    request: Request,
    response: Response,
    caller: CallerDep,
    services: ServicesDep,
) -> ErasedOut:
    """Erase the person everywhere; running jobs of theirs stop. Blends with others go too."""
    receipt = await erase_person(services, caller.tenant, user_id, who=caller.audited_as)
    if receipt is None:
        raise ServiceError(404, "user_not_found")
    if caller.is_session:
        end_session(request, response)
        response.headers["Clear-Site-Data"] = '"cache"'
    return ErasedOut(user_id=user_id, **vars(receipt))


def _gallery_image(image: Image, job: Job) -> GalleryImageOut:
    result = job.result or {}
    return GalleryImageOut(
        id=image.id,
        url=f"/images/{image.id}",
        job_id=job.id,
        prompt=job.request["prompt"],
        seed=job.request["seed"] + image.position,
        strength=job.request["strength"],
        personalization_applied=bool(result.get("personalization_applied")),
        profile_version=result.get("profile_version"),
        created_at=image.created_at,
    )
