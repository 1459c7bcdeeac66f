"""Progress of jobs, in this process: a bounded memory per job and those who follow it."""

from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from service.core.messages import JobEvent, attempt_of
from service.infra.memory.followers import Follower, Followers

_EVENTS_PER_JOB = 256
_JOBS_REMEMBERED = 512


class InProcessEvents:
    """ProgressEvents for one event loop; `publish` is to be called on that loop."""

    def __init__(self) -> None:
        self._memory: OrderedDict[str, deque[JobEvent]] = OrderedDict()
        self._followers: Followers[Follower] = Followers()

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
        self._followers.tell(job_id, event)

    def _show(self, job_id: str, preview: JobEvent) -> None:
        """Tell of a preview, unless the job was forgotten, has ended, or began again."""
        memory = self._memory.get(job_id)
        if not memory or memory[-1].terminal:
            return
        if attempt_of(preview.seq) != attempt_of(memory[-1].seq):
            return
        self._followers.tell(job_id, preview)

    async def latest(self, job_id: str) -> JobEvent | None:
        memory = self._memory.get(job_id)
        return memory[-1] if memory else None

    def forget(self, job_id: str) -> None:
        self._memory.pop(job_id, None)
        self._followers.tell(job_id, None)

    @asynccontextmanager
    async def subscribe(self, job_id: str, after_seq: int) -> AsyncIterator[Follower]:
        follower = Follower(job_id, after_seq)
        for event in self._memory.get(job_id, ()):
            follower.take(event)
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.remove(follower)

    def close(self) -> None:
        """End every subscription, now and from now on."""
        self._followers.close()
