"""Ending a job before it is done, whoever asks for it."""

from collections.abc import Awaitable, Callable

from service.core.messages import status_event
from service.infra.parts import Parts
from service.infra.sql.store import Store
from service.infra.sql.tables import Job, seconds_since


async def cancel(parts: Parts, find: Callable[[Store], Awaitable[Job]]) -> tuple[Job, bool]:
    """The job as it stands now, and whether it was ended; one that has ended stays as it is.

    `find` gives it locked. Its worker is told at once, and so is whoever follows it; a profile
    version that it was to read is not coming.
    """
    async with parts.database.write() as store:
        job = await find(store)
        canceled = await store.jobs.cancel(job)
        if canceled and job.profile_pk is not None:
            await store.profiles.finish(job.profile_pk, "failed", error_code="canceled")
        await store.session.refresh(job)
    if canceled:
        parts.metrics.job_ended(job.kind, "canceled", seconds_since(job.created_at))
        parts.signals.cancel(job.id)
        parts.signals.ring()  # one that waited for its pictures may run
        parts.events.publish(job.id, status_event(job.seq, "canceled"))
    return job, canceled
