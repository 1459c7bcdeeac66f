"""A request that equals an earlier one gets its pictures: the same ids, so the same bytes.

No model works for it and nobody is charged. While the first of equal requests is being made the
others wait for it (`Claims.claim` passes them by), and are answered when it has succeeded; when it
ends otherwise one of them is made in its place. It all ends with the pictures: erased, deleted
after their time, or unreadable, they are made anew.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.actions.conditioning import echo, tastes_of
from service.core.auth import BROWSER_TENANT
from service.core.equal_requests import Taste, acceptable_sha256s
from service.core.messages import end_seq, status_event
from service.core.ports import Versions
from service.infra.parts import Parts
from service.infra.pictures.verified import read_verified
from service.infra.sql.jobs.generations import Subject
from service.infra.sql.store import Store
from service.infra.sql.tables import Image, Job, JobSubject, seconds_since

log = logging.getLogger("ppd.equal_requests")


@dataclass(frozen=True)
class Wanted:
    """Pictures that may have been made before: a request with its pins, and whose it is."""

    tenant: str
    owner_pk: str | None
    request: Mapping[str, Any]
    subjects: Sequence[Subject | JobSubject]
    adapter_version: str | None
    """The adapter that is pinned; None is the one shipped."""

    @property
    def sha256s(self) -> list[str]:
        """Of the requests whose pictures these may be."""
        browser_pk = self.owner_pk if self.tenant == BROWSER_TENANT else None
        used = tastes(self.subjects, self.owner_pk)
        return acceptable_sha256s(self.tenant, browser_pk, self.request, used)


def tastes(subjects: Sequence[Subject | JobSubject], owner_pk: str | None) -> list[Taste]:
    """The tastes of a request whose job is `owner_pk`'s, as its hash takes them.

    What is made with a shared one is given to no other person, so that it goes with nobody else.
    """
    return [
        (
            f"{one.user_pk} for {owner_pk}" if one.shared else one.user_pk,
            one.profile_pk,
            one.weight,
        )
        for one in subjects
    ]


async def wanted_by(store: Store, job: Job) -> Wanted:
    """What a job is to make."""
    subjects = await store.jobs.subjects(job.id)
    return Wanted(job.tenant, job.user_pk, job.request, subjects, job.adapter_version)


async def earlier_result(parts: Parts, versions: Versions, wanted: Wanted) -> dict[str, Any] | None:
    """A result out of pictures that were made for an equal request; None where there are none.

    Its timings are zeros. Pictures that cannot be read are remembered no more.
    """
    async with parts.database.read() as store:
        found = await store.images.of_equal(wanted.tenant, wanted.sha256s, wanted.request["n"])
        if not found:
            return None
        tastes = await tastes_of(store, versions, wanted.request, wanted.subjects)
    own_adapter = None if versions.adapter_overrides else wanted.adapter_version
    now = {
        "model": versions.model,
        "adapter_version": own_adapter or versions.adapter_version,
        "encoder_version": versions.encoder_version,
        **echo(wanted.request, tastes),
    }
    for images, result in found:
        if not _is_made_so(result, now):
            continue
        if not await _readable(parts, images):
            assert images[0].job_id is not None
            async with parts.database.write() as store:
                await store.jobs.forget_equal(images[0].job_id)
            continue
        told: dict[str, Any] = {
            name: result[name] for name in ("warnings", "usage") if name in result
        }
        timings = {"queue_s": 0.0, "denoise_s": 0.0, "decode_s": 0.0}
        return {
            "images": result["images"],
            **now,
            **told,
            "cached": True,
            "timings": timings,
        }
    return None


async def answer_waiting(parts: Parts, versions: Versions, made: Job) -> None:
    """Answer all that wait for the pictures of a job which has succeeded.

    Those that cannot have them may be run from now on.
    """
    if made.request_sha256 is None:
        return
    async with parts.database.read() as store:
        waiting = await store.jobs.waiting_equal(made.request_sha256)
        wanted = {job.adapter_version: await wanted_by(store, job) for job in waiting}
    results = {
        adapter: await earlier_result(parts, versions, one) for adapter, one in wanted.items()
    }
    answered: list[tuple[Job, dict[str, Any]]] = []
    async with parts.database.write() as store:
        for job in waiting:
            result = results[job.adapter_version]
            if result is not None:
                result = waited(result, job)
                if await store.claims.answer(job, result):
                    answered.append((job, result))
    for job, result in answered:
        parts.metrics.job_ended(job.kind, "succeeded", seconds_since(job.created_at))
        parts.metrics.answered_again(result)
        parts.events.publish(job.id, status_event(end_seq(job.attempt, job.seq), "succeeded"))
    if None in results.values():
        await let_go(parts, made)


def waited(result: dict[str, Any], job: Job) -> dict[str, Any]:
    """The same, with how long this job has waited for it."""
    queue_s = round(max(0.0, seconds_since(job.created_at)), 4)
    return {**result, "timings": {**result["timings"], "queue_s": queue_s}}


async def let_go(parts: Parts, ended: Job) -> None:
    """Let one of those that waited for this job run: it has ended without pictures for them."""
    if ended.request_sha256 is None:
        return
    async with parts.database.write() as store:
        await store.jobs.put_tickets_of_equal(ended.request_sha256)
    parts.signals.ring()


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
