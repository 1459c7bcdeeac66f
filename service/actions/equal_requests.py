"""A request that equals an earlier one gets its pictures: the same ids, so the same bytes.

No model works for it and nobody is charged. While the first of equal requests is being made the
others wait for it (`Claims.claim` passes them by), and are answered when it has succeeded; when it
ends otherwise one of them is made in its place. It all ends with the pictures: erased, deleted
after their time, or unreadable, they are made anew.
"""

import logging
from collections.abc import Mapping
from typing import Any

from service.actions.conditioning import echo, tastes_of
from service.core.messages import end_seq, status_event
from service.core.ports import Versions
from service.infra.parts import Parts
from service.infra.pictures.verified import read_verified
from service.infra.sql.jobs.seen import JobSeen
from service.infra.sql.tables import Image, Job, seconds_since

log = logging.getLogger("ppd.equal_requests")


async def answer(parts: Parts, versions: Versions, job_id: str) -> JobSeen | None:
    """End a waiting job with the pictures of an earlier equal one.

    None when there are none that can be read, or when the job does not wait any more.
    """
    async with parts.database.read() as store:
        job = await store.jobs.get(job_id)
    if job is None or job.status != "queued":
        return None
    result = await earlier_result(parts, versions, job)
    if result is None:
        return None
    async with parts.database.write() as store:
        if not await store.claims.answer(job, result):
            return None
        seen = (await store.jobs.seen([job_id]))[job_id]
    parts.metrics.job_ended(job.kind, "succeeded", seconds_since(job.created_at))
    parts.metrics.answered_again(result)
    parts.events.publish(job_id, status_event(end_seq(job.attempt, job.seq), "succeeded"))
    return seen


async def answer_waiting(parts: Parts, versions: Versions, made: Job) -> None:
    """Answer all that wait for the pictures of a job which has succeeded.

    Those that cannot have them may be run from now on.
    """
    if made.request_sha256 is None:
        return
    async with parts.database.read() as store:
        waiting = await store.jobs.waiting_equal(made.request_sha256)
    answered = [await answer(parts, versions, job_id) for job_id in waiting]
    if None in answered:
        await let_go(parts, made)


async def let_go(parts: Parts, ended: Job) -> None:
    """Let one of those that waited for this job run: it has ended without pictures for them."""
    if ended.request_sha256 is None:
        return
    async with parts.database.write() as store:
        await store.jobs.put_tickets_of_equal(ended.request_sha256)
    parts.signals.ring()


async def earlier_result(parts: Parts, versions: Versions, job: Job) -> dict[str, Any] | None:
    """The job's result out of the pictures of an earlier equal one; None where there are none."""
    if job.request_sha256 is None:
        return None
    async with parts.database.read() as store:
        found = await store.images.of_equal(job)
        if not found:
            return None
        said = echo(job.request, await tastes_of(store, versions, job))
    own_adapter = None if versions.adapter_overrides else job.adapter_version
    now = {
        "model": versions.model,
        "adapter_version": own_adapter or versions.adapter_version,
        "encoder_version": versions.encoder_version,
        **said,
    }
    for images, result in found:
        if _is_made_so(result, now) and await _readable(parts, images):
            warnings = {"warnings": result["warnings"]} if "warnings" in result else {}
            queue_s = round(max(0.0, seconds_since(job.created_at)), 4)
            return {
                "images": result["images"],
                **now,
                **warnings,
                "cached": True,
                "timings": {"queue_s": queue_s, "denoise_s": 0.0, "decode_s": 0.0},
            }
    return None


def _is_made_so(result: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether these pictures are what would be made now, as far as the requests do not say it."""
    names = ["model", "personalization_applied"]
    if now["personalization_applied"]:
        names += ["adapter_version", "encoder_version", "profile_version", "blend"]
    return all(result.get(name) == now.get(name) for name in names)


async def _readable(parts: Parts, images: list[Image]) -> bool:
    try:
        for image in images:
            await read_verified(parts.images, image)
    except OSError as error:
        log.warning("a picture that was asked for again cannot be read, it is made anew: %s", error)
        return False
    return True
