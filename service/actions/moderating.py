"""Whether content is allowed, where it comes in and where it was made; and what becomes of pictures
that were reported."""

import asyncio
import logging
from collections.abc import Awaitable, Sequence

from service.actions.leftovers import delete_soon
from service.core.errors import FieldError, JobFailure, ServiceError
from service.core.ports import ModeratedPlace, RefusalReason
from service.infra import logs
from service.infra.parts import Parts
from service.infra.sql.oversight.audit import SERVICE
from service.infra.sql.store import Store
from service.infra.sql.tables import Image, Job, Report

log = logging.getLogger("ppd.moderation")

_RETRY_AFTER = {"Retry-After": "5"}

Content = tuple[str, str | bytes, str]
"""Where it stands in a body (a JSON pointer), the text or the file, and the file's media type."""


async def refuse(
    parts: Parts, place: ModeratedPlace, contents: Sequence[Content], who: str, tenant: str
) -> None:
    """Raise 422 for what is not allowed, 503 where nobody can tell; both before it is stored."""
    if not contents or not parts.moderation.look_at(place):
        return
    try:
        reasons = await asyncio.gather(*(_reason(parts, place, one) for one in contents))
    except OSError as error:
        log.error("%s", error)
        raise ServiceError(503, "moderation_unavailable", headers=_RETRY_AFTER) from error
    refused = [(one[0], why) for one, why in zip(contents, reasons, strict=True) if why is not None]
    if not refused:
        return
    request = f"request:{logs.request_id()}"
    await _note(parts, place, refused[0][1], who, request, tenant)
    errors = tuple(FieldError(pointer, f"refused as {reason}") for pointer, reason in refused)
    raise ServiceError(422, "content_refused", errors=errors)


async def refuse_made(parts: Parts, job: Job, files: Sequence[bytes], media_type: str) -> None:
    """Raise JobFailure for a job whose pictures are not allowed, or cannot be judged."""
    try:
        for file in files:
            reason = await parts.moderation.refuse_picture("picture", file, media_type)
            if reason is not None:
                await _note(parts, "picture", reason, SERVICE, f"job:{job.id}", job.tenant)
                raise JobFailure("content_refused", f"What was made was refused as {reason}.")
    except OSError as error:
        log.error("%s", error)
        raise JobFailure("moderation_unavailable") from error


def _reason(parts: Parts, place: ModeratedPlace, one: Content) -> Awaitable[RefusalReason | None]:
    _, content, media_type = one
    if isinstance(content, str):
        return parts.moderation.refuse_text(place, content)
    return parts.moderation.refuse_picture(place, content, media_type)


async def _note(
    parts: Parts, place: ModeratedPlace, reason: RefusalReason, who: str, of: str, tenant: str
) -> None:
    parts.metrics.refused(place, reason)
    async with parts.database.write() as store:
        await store.audit.note(who, "content.refused", of, tenant, place=place, reason=reason)


async def take_down_reported(store: Store, report_id: str, who: str) -> list[str]:
    """Take the reported picture away; the key of its bytes, for `settle`.

    Raises 404 for no such report, or where the picture is gone by itself, 409 for one that was
    taken down before.
    """
    report = await _decidable(store, report_id, ("open", "dismissed"))
    keys = await take_down(store, report.image_id, who)
    if not keys:
        raise ServiceError(404, "image_not_found", "The picture is gone: erased, or its time over.")
    return keys


async def take_down(store: Store, image_id: str, who: str) -> list[str]:
    """Take any picture away, reported or not; the keys of its bytes, none where there is none.

    Its row goes, its bytes are noted to go, and no equal request is given it any more; answers that
    were given about it go with their copies of it.
    """
    image = await store.images.get(image_id)
    if image is None:
        return []
    await store.reports.taken_down(image, who)
    await store.audit.note(who, "picture.taken_down", f"picture:{image.id}", image.tenant)
    await store.deletions.note(Image.id == image.id)
    copies: list[str] = []
    for choice in await store.choices.of_made(image_id):
        copies += [one for one in (choice.image_0_id, choice.image_1_id) if one is not None]
        await store.choices.remove(choice)
    await store.session.delete(image)
    await store.session.flush()
    return [image.key, *await store.images.remove(copies)]


async def dismiss(store: Store, report_id: str, who: str) -> Report:
    """The picture stays. Raises 404 for no such report, 409 for one that was decided on."""
    report = await _decidable(store, report_id, ("open",))
    await store.reports.dismiss(report)
    await store.audit.note(who, "report.dismissed", f"report:{report.id}", report.tenant)
    return report


async def settle(parts: Parts, keys: list[str]) -> None:
    """After the commit: delete the bytes; what cannot be deleted now goes later."""
    if keys:
        await delete_soon(parts, keys)
        await parts.database.scrub()


async def _decidable(store: Store, report_id: str, states: tuple[str, ...]) -> Report:
    report = await store.reports.get(report_id, lock=True)
    if report is None:
        raise ServiceError(404, "report_not_found")
    if report.status not in states:
        raise ServiceError(409, "report_decided", f"The report is {report.status} already.")
    return report
