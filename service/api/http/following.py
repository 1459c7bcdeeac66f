"""What happens to a job, told by its events, and by its row where events are lost."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from service.core.errors import DatabaseAway
from service.core.messages import TERMINAL, JobEvent, status_event
from service.core.ports import ProgressEvents
from service.infra.sql.database import Database

log = logging.getLogger("ppd.http")

LOOK_EVERY_S = 2.0


async def follow(
    database: Database,
    job_id: str,
    stream: AsyncIterator[JobEvent],
    after_seq: int,
    place: Callable[[], Awaitable[Mapping[str, Any] | None]] | None = None,
    told: Mapping[str, Any] | None = None,
) -> AsyncIterator[JobEvent]:
    """The events after `after_seq`, in order, to the end of the job or of the stream.

    While it waits, what `place` says of its place in the queue is an event whenever it is
    another than what was `told`.

    Whenever none came for two seconds the row is looked at. So the end always comes, and a job
    that was erased ends the stream, whatever becomes of the events on their way.
    """
    while True:
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                event = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            try:
                async with database.read() as store:
                    state = await store.jobs.state(job_id)
            except (DatabaseAway, OperationalError, PoolTimeoutError):
                log.warning("a look at a job's row failed; it comes again", exc_info=True)
                continue
            if state is None:
                return
            status, seq = state
            event = status_event(seq, status)
            if event.terminal:
                after_seq = min(after_seq, seq - 1)
            elif status == "queued" and place is not None:
                now = await place()
                if now is not None and now != told:
                    told = now
                    yield JobEvent(seq, "queue", now)
        if not event.remembered:
            yield event
        elif event.seq > after_seq:
            after_seq = event.seq
            yield event
            if event.terminal:
                return


async def follow_to_end(
    database: Database, events: ProgressEvents, job_id: str
) -> AsyncGenerator[JobEvent]:
    """What happens to a job from now on, until it has ended; nothing if it has."""
    async with events.subscribe(job_id, 0) as stream:
        async with database.read() as store:
            job = await store.jobs.get(job_id)
        if job is None or job.status in TERMINAL:
            return
        async for event in follow(database, job_id, stream, job.seq):
            yield event
