"""Everything held about a person: to see, to take along, to erase."""

import base64
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from service.api.choices import choice_out, found_user, version_out
from service.api.cursors import decode_cursor, encode_cursor
from service.api.deps import CallerDep, ProtectedRoute, ServicesDep, UserIdDep, end_session
from service.api.jobs import job_out
from service.api.schemas import ErasedOut, GalleryImageOut, GalleryOut
from service.core.errors import ServiceError, invalid
from service.infra.tables import Image, Job

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
    before = None
    if cursor is not None:
        at, image_id = map(str, decode_cursor(cursor, str, str))
        try:
            before = (datetime.fromisoformat(at), image_id)
        except ValueError:
            raise invalid("", "query parameter cursor: is not one of ours") from None
        if before[0].utcoffset() != timedelta(0) or not image_id.isalnum():
            raise invalid("", "query parameter cursor: is not one of ours")
    async with services.database.read() as store:
        user = await store.users.find(caller.tenant, user_id)
        if user is None and not caller.is_session:
            raise ServiceError(404, "user_not_found")
        found = await store.images.page(user.pk, before, limit + 1) if user is not None else []
    page = list(found[:limit])
    following = None
    if len(found) > limit:
        last = page[-1][0]
        following = encode_cursor(last.created_at.isoformat(), last.id)
    return GalleryOut(results=[_gallery_image(*row) for row in page], next=following)


@router.get("/export")
async def export(user_id: UserIdDep, caller: CallerDep, services: ServicesDep) -> dict[str, Any]:
    """Everything held about this person. Pictures are named by URL, with their SHA-256.

    Blends that used the person's taste are in it; the others who were in them are not named.
    """
    async with services.database.read() as store:
        user = await found_user(store, caller, user_id)
        answers = await store.choices.of(user.pk)
        profiles = await store.profiles.of(user.pk)
        jobs = await store.jobs.of_user(user.pk)
        images = await store.images.of(user.pk)
    return {
        "user_id": user.user_id,
        "created_at": user.created_at,
        "choices": [
            {**choice_out(services, answer).model_dump(), "shown_swapped": answer.swapped}
            for answer in answers
        ],
        "profiles": [
            {
                **version_out(profile).model_dump(),
                "read_from": profile.choices,
                "seed": profile.seed,
                "embedding_float32_le_base64": _base64(profile.embedding),
            }
            for profile in profiles
        ],
        "jobs": [
            {
                **_without_others(job_out(job).model_dump(exclude_none=True), user_id),
                "kind": job.kind,
                "request": _without_others(job.request, user_id),
            }
            for job in jobs
        ],
        "images": [
            {
                "id": image.id,
                "url": f"/images/{image.id}",
                "kind": image.kind,
                "sha256": image.sha256,
                "width_px": image.width_px,
                "height_px": image.height_px,
                "job_id": image.job_id,
                "created_at": image.created_at,
            }
            for image in images
        ],
    }


@router.delete("")
async def erase(
    user_id: UserIdDep,
    request: Request,
    response: Response,
    caller: CallerDep,
    services: ServicesDep,
) -> ErasedOut:
    """Erase the person everywhere; running jobs of theirs stop. Blends with others go too."""
    async with services.database.write() as store:
        user = await found_user(store, caller, user_id)
        erased = await store.users.erase(user)
    for job_id in erased.job_ids:
        services.signals.cancel(job_id)
        services.events.forget(job_id)
    await services.cache.forget_user(caller.tenant, user.pk)
    await services.images.delete(erased.image_keys)
    scrubbed = await services.database.scrub()
    if caller.is_session:
        end_session(request, response)
    return ErasedOut(
        user_id=user_id,
        erased={
            "choices": erased.choices,
            "profiles": erased.profiles,
            "jobs": len(erased.job_ids),
            "images": len(erased.image_keys),
        },
        scrubbed=scrubbed,
    )


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


def _without_others(value: Any, user_id: str) -> Any:
    """The same, with null in the place of every other person's id and profile version."""
    if isinstance(value, list):
        return [_without_others(item, user_id) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("user_id", user_id) != user_id:
        return {"user_id": None, "profile_version": None}
    return {
        name: [one if one == user_id else None for one in item]
        if name == "user_ids"
        else _without_others(item, user_id)
        for name, item in value.items()
    }


def _base64(data: bytes | None) -> str | None:
    return base64.b64encode(data).decode() if data is not None else None
