"""Ending jobs before they are done, and erasing them, whoever asks for it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from service.actions.leftovers import BATCH, delete_soon
from service.core.errors import ServiceError
from service.core.messages import TERMINAL, status_event
from service.infra.parts import Parts
from service.infra.sql.store import Store
from service.infra.sql.tables import Image, Job, seconds_since


@dataclass(frozen=True)
class Ended:
    """The ids of jobs that were canceled, and what was erased."""

    canceled: list[str] = field(default_factory=list)
    erased_jobs: list[str] = field(default_factory=list)
    erased_images: list[str] = field(default_factory=list)
    """Keys in the image store."""


async def cancel(parts: Parts, find: Callable[[Store], Awaitable[Job]]) -> tuple[Job, bool]:
    """The job as it stands now, and whether it was ended; one that has ended stays as it is.

    `find` gives it locked. Its worker is told at once, and so is whoever follows it; a profile
    version that it was to read is not coming.
    """
    async with parts.database.write() as store:
        job = await find(store)
        canceled = await end(store, job)
    if canceled:
        tell(parts, job)
    return job, canceled


async def cancel_all(parts: Parts, tenant: str, user_id: str, *, erase: bool, who: str) -> Ended:
    """Cancel all that waits or runs of a person; with `erase`, erase all pictures asked for.

    That is every job for pictures that is the person's own, ended or not, and what it made.
    Readings are canceled, not erased: they go with the person. So do blends.
    """
    async with parts.database.write() as store:
        user = await store.users.hold(tenant, user_id)
        if user is None:
            return Ended()
        canceled = [job for job in await store.jobs.unended_of(user.pk) if await end(store, job)]
        jobs = await store.jobs.made_for(user.pk) if erase else []
        keys = await _erase(store, jobs)
        if jobs:
            await store.audit.note(who, "jobs.erased", f"person:{user.pk}", tenant, jobs=len(jobs))
    return await _settled(parts, canceled, jobs, keys)


async def cancel_nobodys(parts: Parts, tenant: str, *, erase: bool, who: str) -> Ended:
    """The same of a tenant's jobs in nobody's name and taste, a thousand at a time."""
    async with parts.database.write() as store:
        found = await store.jobs.of_nobody(tenant, ended=erase)
        canceled = [job for job in found if job.status not in TERMINAL and await end(store, job)]
        jobs = [job.id for job in found] if erase else []
        keys = await _erase(store, jobs)
        if jobs:
            await store.audit.note(who, "jobs.erased", "person:nobody", tenant, jobs=len(jobs))
    return await _settled(parts, canceled, jobs, keys)


async def cancel_and_erase(
    parts: Parts, find: Callable[[Store], Awaitable[Job]], *, who: str
) -> Ended:
    """Cancel a job if it has not ended, and erase it with its pictures.

    `find` gives it locked. Raises 409 for a reading, whose profile goes with the person.
    """
    async with parts.database.write() as store:
        job = await find(store)
        if job.kind != "generate":
            raise ServiceError(409, "reading_kept")
        canceled = [job] if await end(store, job) else []
        keys = await _erase(store, [job.id])
        await store.audit.note(who, "jobs.erased", f"job:{job.id}", job.tenant, jobs=1)
    return await _settled(parts, canceled, [job.id], keys)


async def end(store: Store, job: Job) -> bool:
    """Cancel a locked job; false when it has ended. `tell` of it once that is committed."""
    canceled = await store.jobs.cancel(job)
    if canceled and job.profile_pk is not None:
        await store.profiles.finish(job.profile_pk, "failed", error_code="canceled")
    await store.session.refresh(job)
    return canceled


async def _erase(store: Store, job_ids: list[str]) -> list[str]:
    """Delete locked jobs and note their pictures to be deleted; the keys of those."""
    keys: list[str] = []
    for start in range(0, len(job_ids), BATCH):
        batch = job_ids[start : start + BATCH]
        keys += await store.images.keys_of_jobs(batch)
        await store.deletions.note(Image.job_id.in_(batch))
        await store.jobs.delete(batch)
    return keys


async def _settled(parts: Parts, canceled: list[Job], jobs: list[str], keys: list[str]) -> Ended:
    """Tell of what was committed, and delete the bytes; what cannot be deleted now goes later."""
    for job in canceled:
        tell(parts, job)
    for job_id in jobs:
        parts.events.forget(job_id)
    if jobs:
        await delete_soon(parts, keys)
        await parts.database.scrub()
    return Ended([job.id for job in canceled], jobs, keys)


def tell(parts: Parts, job: Job) -> None:
    """A job was canceled: its worker, and whoever follows it or waits for it, hear of that."""
    parts.metrics.job_ended(job.kind, "canceled", seconds_since(job.created_at))
    parts.signals.cancel(job.id)
    parts.signals.ring()  # one that waited for its pictures may run
    parts.events.publish(job.id, status_event(job.seq, "canceled"))
