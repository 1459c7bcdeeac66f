"""Progress of jobs, in this process: a bounded memory per job and those who follow it."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from typing import Any, Self

from service.core.messages import JobEvent, attempt_of

_EVENTS_PER_JOB = 256
_JOBS_REMEMBERED = 512
_UNREAD_FOR_PREVIEWS = 8
"""One who has so many events to read is told of no preview."""


class InProcessEvents:
    """ProgressEvents for one event loop; `publish` is to be called on that loop."""

    def __init__(self) -> None:
        self._memory: OrderedDict[str, deque[JobEvent]] = OrderedDict()
        self._followers: dict[str, set[asyncio.Queue[JobEvent | None]]] = {}
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.close()

    def publish(self, job_id: str, event: JobEvent) -> None:
        """Remember and tell. What comes late (of an old attempt, after the end) is dropped."""
        if not event.remembered:
            self._show(job_id, event)
            return
        memory = self._memory.setdefault(job_id, deque(maxlen=_EVENTS_PER_JOB))
        if memory and (event.seq <= memory[-1].seq or memory[-1].terminal):
            return
        memory.append(event)
        self._memory.move_to_end(job_id)
        while len(self._memory) > _JOBS_REMEMBERED:
            self._memory.popitem(last=False)
        for queue in self._followers.get(job_id, ()):
            queue.put_nowait(event)

    def _show(self, job_id: str, preview: JobEvent) -> None:
        """Tell of a preview, unless the job was forgotten, has ended, or began again."""
        memory = self._memory.get(job_id)
        if not memory or memory[-1].terminal:
            return
        if attempt_of(preview.seq) != attempt_of(memory[-1].seq):
            return
        for queue in self._followers.get(job_id, ()):
            if queue.qsize() < _UNREAD_FOR_PREVIEWS:
                queue.put_nowait(preview)

    async def latest(self, job_id: str) -> JobEvent | None:
        memory = self._memory.get(job_id)
        return memory[-1] if memory else None

    def forget(self, job_id: str) -> None:
        self._memory.pop(job_id, None)
        for queue in self._followers.get(job_id, ()):
            queue.put_nowait(None)

    def subscribe(self, job_id: str, after_seq: int) -> "InProcessSubscription":
        return InProcessSubscription(self, job_id, after_seq)

    def close(self) -> None:
        """End every subscription, now and from now on."""
        self._closed = True
        for queues in self._followers.values():
            for queue in queues:
                queue.put_nowait(None)

    def _enter(self, job_id: str, after_seq: int, queue: asyncio.Queue[JobEvent | None]) -> None:
        for event in self._memory.get(job_id, ()):
            if event.seq > after_seq:
                queue.put_nowait(event)
        if self._closed:
            queue.put_nowait(None)
        self._followers.setdefault(job_id, set()).add(queue)

    def _leave(self, job_id: str, queue: asyncio.Queue[JobEvent | None]) -> None:
        queues = self._followers.get(job_id, set())
        queues.discard(queue)
        if not queues:
            self._followers.pop(job_id, None)


class InProcessSubscription:
    """Registers on entry, so that nothing published after it is missed."""

    def __init__(self, events: InProcessEvents, job_id: str, after_seq: int) -> None:
        self._events = events
        self._job_id = job_id
        self._after_seq = after_seq
        self._queue: asyncio.Queue[JobEvent | None] = asyncio.Queue()

    async def __aenter__(self) -> AsyncIterator[JobEvent]:
        self._events._enter(self._job_id, self._after_seq, self._queue)
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._events._leave(self._job_id, self._queue)

    def __aiter__(self) -> AsyncIterator[JobEvent]:
        return self

    async def __anext__(self) -> JobEvent:
        event = await self._queue.get()
        if event is None:
            self._queue.put_nowait(None)  # whoever asks again hears the same
            raise StopAsyncIteration
        return event
