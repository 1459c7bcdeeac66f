"""What nobody else would notice: lost workers, jobs that waited too long, old records."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta

from service.core.messages import TERMINAL, status_event
from service.infra.parts import Parts
from service.infra.sql.tables import Job, seconds_since
from service.worker.runner import fail_profile

log = logging.getLogger("ppd.worker")

MAX_ATTEMPTS = 3
_KEEP_IDEMPOTENCY_KEYS = timedelta(hours=48)

Chore = Callable[[], Awaitable[object]]


class Sweep:
    """Comes round again and again, in every worker; several at once leave each other's work alone.

    `running` tells the jobs of this process, which are not lost. `chores` come after the jobs.
    """

    def __init__(
        self, parts: Parts, running: Callable[[], Collection[str]], chores: Sequence[Chore] = ()
    ) -> None:
        self._parts = parts
        self._running = running
        self._chores: list[Chore] = [self._expire, self._take_up_lost, self._tidy, *chores]

    async def forever(self, every_s: float) -> None:
        while True:
            await self.once()
            await asyncio.sleep(every_s)

    async def once(self) -> None:
        """Sweep. What fails is logged, and comes again."""
        for chore in self._chores:
            try:
                await chore()
            except Exception:
                log.exception("a part of the sweep failed; it comes again")

    async def take_up(self) -> None:
        """What the last process left behind, where there can be only one at a time."""
        await self._requeue(leased_too=True)

    async def _expire(self) -> None:
        async with self._parts.database.write() as store:
            expired = await store.claims.expire()
        self._tell(expired, "expired")

    async def _take_up_lost(self) -> None:
        await self._requeue(leased_too=False)

    async def _requeue(self, *, leased_too: bool) -> None:
        async with self._parts.database.write() as store:
            again, spent = await store.claims.requeue_orphans(
                MAX_ATTEMPTS, leased_too=leased_too, but=self._running()
            )
            for job in spent:
                await fail_profile(store, job, "worker_crash")
        if again or spent:
            log.warning("jobs lost: %d run again, %d failed", len(again), len(spent))
        self._tell(again, "queued")
        self._tell(spent, "failed")

    async def _tidy(self) -> None:
        async with self._parts.database.write() as store:
            await store.idempotency.prune(_KEEP_IDEMPOTENCY_KEYS)
        await self._parts.database.scrub_again()

    def _tell(self, jobs: Collection[Job], status: str) -> None:
        for job in jobs:
            if status in TERMINAL:
                took_s, code = seconds_since(job.created_at), job.error_code or ""
                self._parts.metrics.job_ended(job.kind, status, took_s, code)
            self._parts.events.publish(job.id, status_event(job.seq, status))  # type: ignore[arg-type]


def is_last_chance(job: Job) -> bool:
    """Whether the job fails when its worker is lost once more.

    Of these one is run at a time: what kills its worker takes with it what runs beside it, and the
    last chance of the one is not to be that of the others.
    """
    return job.losses >= MAX_ATTEMPTS - 1
