"""What the queue takes, and the two kinds of job that routers put into it."""

from datetime import timedelta
from typing import Any

from service.api.services import Limits
from service.core.auth import Caller
from service.core.errors import ServiceError
from service.infra.repositories import Store
from service.infra.tables import Choice, Job, Profile, now

ENCODE_PRIORITY = 0
GENERATE_PRIORITY = 10
_RETRY_AFTER = {"Retry-After": "5"}


async def check_room(
    store: Store, limits: Limits, kind: str, caller: Caller, user_pk: str | None
) -> None:
    """Raise 503 when the queue is full, 429 when this caller's part of it is."""
    if await store.jobs.queued(kind) >= limits.max_queued_jobs:
        raise ServiceError(503, "queue_full", headers=_RETRY_AFTER)
    if kind == "encode":
        return  # a person has one waiting encoding at most: the newest overtakes the others
    mine = await store.jobs.queued(kind, caller.tenant, user_pk if caller.is_session else None)
    if mine >= limits.max_queued_jobs_per_caller:
        raise ServiceError(429, "too_many_jobs", headers=_RETRY_AFTER)


async def queue_encoding(
    store: Store,
    limits: Limits,
    caller: Caller,
    user_pk: str,
    *,
    source: str,
    choices: list[Choice],
    seed: int,
    text: str | None = None,
) -> tuple[Profile, Job, list[Job]]:
    """Begin a new profile version and queue its job.

    Encodings of this user that no worker has begun are overtaken: they come back too.
    """
    overtaken: list[Job] = []
    for waiting in await store.jobs.waiting_encode(user_pk):
        await store.jobs.cancel(waiting)
        assert waiting.profile_pk is not None
        await store.profiles.finish(waiting.profile_pk, "superseded")
        await store.session.refresh(waiting)
        overtaken.append(waiting)
    await check_room(store, limits, "encode", caller, user_pk)
    snapshot = [snapshot_of(choice) for choice in choices]
    profile = await store.profiles.add(user_pk, source, snapshot, seed, text)
    job = await store.jobs.add(encode_job(caller.tenant, profile))
    return profile, job, overtaken


def encode_job(tenant: str, profile: Profile) -> Job:
    """The job that encodes a profile version."""
    return Job(
        kind="encode",
        priority=ENCODE_PRIORITY,
        tenant=tenant,
        user_pk=profile.user_pk,
        profile_pk=profile.pk,
        request={"profile_version": profile.version},
    )


def generate_job(tenant: str, user_pk: str | None, request: dict[str, Any], expiry_s: float) -> Job:
    """The job that makes pictures."""
    return Job(
        kind="generate",
        priority=GENERATE_PRIORITY,
        tenant=tenant,
        user_pk=user_pk,
        request=request,
        expires_at=now() + timedelta(seconds=expiry_s),
    )


def snapshot_of(choice: Choice) -> dict[str, Any]:
    """A decided answer, as a profile version remembers it."""
    return {
        "pair_id": choice.pair_id,
        "image_ids": [choice.image_0_id, choice.image_1_id],
        "caption": choice.caption,
        "preferred": choice.preferred,
    }
