"""Who follows which job in this process, and what each has yet to read."""

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

from service.core.messages import JobEvent

_UNREAD = 1024
_UNREAD_FOR_PREVIEWS = 8
"""One who has so many events to read is told of no preview."""


class Follower:
    """Iterates over what it takes: each event once and in order; previews as they come."""

    def __init__(self, job_id: str, after_seq: int) -> None:
        self.job_id = job_id
        self._after_seq = after_seq
        self._queue: asyncio.Queue[JobEvent | None] = asyncio.Queue()

    def __aiter__(self) -> AsyncIterator[JobEvent]:
        return self

    async def __anext__(self) -> JobEvent:
        while (event := await self._queue.get()) is not None:
            if not event.remembered:
                return event
            if event.seq > self._after_seq:
                self._after_seq = event.seq
                return event
        self._queue.put_nowait(None)  # whoever asks again hears the same
        raise StopAsyncIteration

    def take(self, event: JobEvent | None) -> None:
        """Hear an event, or the end. One who does not read loses previews, then steps, no state."""
        if has_room(self._queue.qsize(), event):
            self._queue.put_nowait(event)


def has_room(unread: int, event: JobEvent | None) -> bool:
    if event is None or event.kind == "status":
        return True
    return unread < (_UNREAD if event.remembered else _UNREAD_FOR_PREVIEWS)


Some = TypeVar("Some", bound=Follower)


class Followers(Generic[Some]):
    """The followers of this process, by job."""

    def __init__(self) -> None:
        self._of_job: dict[str, set[Some]] = {}
        self.closed = False

    def of(self, job_id: str) -> set[Some]:
        return self._of_job.get(job_id, set())

    def add(self, follower: Some) -> None:
        self._of_job.setdefault(follower.job_id, set()).add(follower)
        if self.closed:
            follower.take(None)

    def remove(self, follower: Some) -> bool:
        """Whether nobody follows its job any more."""
        followers = self.of(follower.job_id)
        followers.discard(follower)
        if not followers:
            self._of_job.pop(follower.job_id, None)
        return not followers

    def tell(self, job_id: str, event: JobEvent | None) -> None:
        """Tell of an event, or that there will be no more."""
        for follower in self.of(job_id):
            follower.take(event)

    def close(self) -> None:
        """End every subscription, now and from now on."""
        self.closed = True
        for job_id in self._of_job:
            self.tell(job_id, None)
