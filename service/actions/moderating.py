"""Asks whether content is allowed, where it comes in and where it was made."""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from service.core.errors import FieldError, JobFailure, ServiceError
from service.core.ports import ModeratedPlace, RefusalReason
from service.infra import logs
from service.infra.parts import Parts
from service.infra.sql.oversight.audit import SERVICE
from service.infra.sql.tables import Job

log = logging.getLogger("ppd.moderation")

_RETRY_AFTER = {"Retry-After": "5"}
_T = TypeVar("_T")

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
