"""Who waits where in the queue, and a guess of how long: one look serves all who ask."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from service.core.fairness import Working, expected_waits_s
from service.infra.sql.database import Database
from service.infra.sql.jobs.line import InLine
from service.infra.sql.tables import seconds_since

log = logging.getLogger("ppd.http")

_FRESH_S = 1.0
_REST = 9.0
"""For a job that was not seen yet it is looked anew, after so many times as long as a look took."""
_LEAST_LEFT = 0.1
"""Of the work of what runs longer than it should, so much is taken to be left."""


@dataclass(frozen=True)
class Place:
    """How many jobs of its kind are begun before this one, and in how many seconds it is, about.

    The guess is None where nothing has been measured yet, or nobody takes such jobs now.
    """

    position: int
    expected_wait_s: float | None


class QueuePlaces:
    """Looks at the queue when somebody asks, once a second, or for a job that it has not seen."""

    def __init__(
        self, database: Database, working: Callable[[], Awaitable[Sequence[Working]]]
    ) -> None:
        self._database = database
        self._working = working
        self._turn = asyncio.Lock()
        self._looked_s = float("-inf")
        self._took_s = 0.0
        self._places: Mapping[str, Place] = {}

    async def of(self, job_id: str) -> Place | None:
        """A waiting job's place; None for one that does not wait, or came in this moment.

        None too where the queue cannot be looked at: whatever else is told of a job does without.
        """
        async with self._turn:
            patience_s = _FRESH_S if job_id in self._places else self._took_s * _REST
            began_s = time.monotonic()
            if began_s - self._looked_s >= patience_s:
                self._places = await self._look()
                self._looked_s = time.monotonic()
                self._took_s = self._looked_s - began_s
        return self._places.get(job_id)

    async def _look(self) -> Mapping[str, Place]:
        try:
            async with self._database.read() as store:
                line = await store.jobs.line()
            return places(line, await self._working())
        except Exception:  # of the database, or of where workers say what they do
            log.warning("a look at the queue failed; it comes again", exc_info=True)
            return {}


def places(line: Sequence[InLine], working: Sequence[Working]) -> dict[str, Place]:
    """The places of all that wait, in the line as it is served."""
    found: dict[str, Place] = {}
    for kind in {job.kind for job in line}:
        found |= _places_of(kind, line, [one for one in working if kind in one.kinds])
    return found


def _places_of(kind: str, line: Sequence[InLine], working: Sequence[Working]) -> dict[str, Place]:
    """Of one kind, among all that the models which take it take."""
    taken = {kind, *(other for one in working for other in one.kinds)}
    step_s = _mean([one.step_s for one in working])
    reading_s = _mean([one.reading_s for one in working])

    def work_s(job: InLine) -> float | None:
        if job.kind == "encode":
            return None if reading_s is None else reading_s * (job.readings or 1)
        return None if step_s is None else step_s * (job.steps or 0) * (job.n or 1)

    running = [job for job in line if job.runs and job.kind in taken]
    share = min(1.0, len(working) / max(1, len(running)))
    left = [_left_s(work_s(job), job, share) for job in running]
    ahead: dict[str, InLine] = {}  # of equal requests the first is computed, for all of them
    for job in line:
        if not job.runs and not job.with_another and job.kind in taken:
            ahead.setdefault(job.equal, job)
    at_once = sum(one.jobs_at_once for one in working)
    guesses: Sequence[float | None] = [None] * len(ahead)
    if at_once:
        guesses = expected_waits_s(
            [work_s(job) for job in ahead.values()], left, len(working), at_once
        )
    place: dict[str, Place] = {}
    position = 0
    for (equal, job), guess in zip(ahead.items(), guesses, strict=True):
        if job.kind == kind:
            place[equal] = Place(position, None if guess is None else round(guess, 1))
            position += 1
    soon = Place(0, 0.0 if working else None)
    return {
        job.id: soon if job.with_another else place[job.equal]
        for job in line
        if job.kind == kind and not job.runs
    }


def _left_s(work_s: float | None, job: InLine, share: float) -> float | None:
    if work_s is None or job.started_at is None:
        return None
    return max(work_s - seconds_since(job.started_at) * share, work_s * _LEAST_LEFT)


def _mean(measured: Sequence[float | None]) -> float | None:
    """None while any of them is not known."""
    known = [one for one in measured if one is not None]
    return sum(known) / len(known) if known else None
