"""START HERE of the worker inside the service: takes jobs in their order and runs them."""

import asyncio
import logging

from service.actions.housekeeping import keep_house
from service.core.auth import BROWSER_TENANT
from service.core.fairness import Working
from service.core.messages import KINDS
from service.core.ports import ModelRuntime, Versions
from service.infra.adapters import AdapterCopies
from service.infra.ending import beside
from service.infra.parts import Parts
from service.infra.sql.tables import Job
from service.worker import reencoding
from service.worker.runner import Runner
from service.worker.sweep import MAX_ATTEMPTS, Sweep, is_last_chance

log = logging.getLogger("ppd.worker")

WORKER_ID = "embedded"
_IDLE_S = 5.0
_AFTER_FAILURE_S = 1.0
_SWEEP_EVERY_S = 30.0


class Worker:
    """One model, as many jobs under way as it takes at once; encodings before pictures."""

    def __init__(
        self, parts: Parts, runtime: ModelRuntime, lease_s: float, adapters: AdapterCopies
    ) -> None:
        self._parts = parts
        self._runner = Runner(parts, runtime, lease_s, adapters)
        self._sweep = Sweep(parts, lambda: self._runner.running)
        self._lease_s = lease_s
        self._under_way: set[asyncio.Task[None]] = set()
        self._jobs_at_once = runtime.jobs_at_once
        self._free = asyncio.Semaphore(runtime.jobs_at_once)
        self._of_sessions = 0
        """Jobs of browser sessions that are under way."""
        self._last_chance: str | None = None
        """The job under way that fails when this process is lost too."""
        self._not_ready: str | None = "the model is being loaded"
        self._versions: Versions | None = None
        self._stopping = False

    async def why_not_ready(self) -> str | None:
        """Why no job can be run; None when one can."""
        return self._not_ready or self._broken()

    async def impaired(self) -> str | None:
        """Nothing: all of it is in this process."""
        return None

    async def encoder_version(self) -> str | None:
        return self._versions.encoder_version if self._versions is not None else None

    async def versions(self) -> Versions | None:
        return self._versions

    async def working(self) -> list[Working]:
        """The one model, while it runs jobs."""
        ready = await self.why_not_ready() is None
        return [self._runner.pace.of(KINDS, self._jobs_at_once)] if ready else []

    async def run(self) -> None:
        """Take up what was not finished, load the model, then work until `stop`.

        Without a model the work is to say so: every job fails with that reason.
        """
        async with beside(
            self._sweep.forever(_SWEEP_EVERY_S),
            self._runner.renew_forever(self._lease_s / 3),
            keep_house(self._parts),
        ):
            try:
                versions = await self._begin()
                while not self._stopping:
                    try:
                        await self._next(versions)
                    except Exception:  # the database, say: its jobs are taken up by the sweep
                        log.exception("the worker failed; it goes on")
                        await asyncio.sleep(_AFTER_FAILURE_S)
                await asyncio.gather(*self._under_way)
            finally:
                self._not_ready = "the worker has stopped"
                self._runner.close()

    def stop(self) -> None:
        """Let `run` end: pictures stop at their next step and wait for the next start."""
        self._stopping = True
        self._not_ready = "the service is stopping"
        self._runner.stop()
        self._parts.signals.ring()

    async def _begin(self) -> Versions | None:
        """Make ready; None when that fails, with the reason in `not_ready`."""
        try:
            await self._sweep.take_up()
            versions = await self._runner.load()
            self._versions = versions
            await reencoding.queue_stale(self._parts.database, versions)
        except Exception as error:
            log.exception("the worker did not start")
            self._not_ready = f"the worker did not start: {error}"
            return None
        if not self._stopping:
            self._not_ready = None
        return versions

    def _broken(self) -> str | None:
        why = self._runner.broken()
        return why and f"the model has stopped, restart the service: {why}"

    async def _next(self, versions: Versions | None) -> None:
        """Begin the next job once there is a place for one, or wait for one.

        Without a model that works jobs wait for the next start.
        """
        await self._free.acquire()
        job = None
        try:
            if not self._stopping and self._broken() is None:
                job = await self._claim()
        finally:
            if job is None:
                self._free.release()
        if job is None:
            await self._parts.signals.wait(_IDLE_S)
            return
        self._of_sessions += job.tenant == BROWSER_TENANT
        running = asyncio.create_task(self._run(job, versions))
        self._under_way.add(running)
        running.add_done_callback(self._under_way.discard)

    async def _claim(self) -> Job | None:
        """The next job; of those on their last chance one at a time.

        Sessions leave one place free, so that a key's job is begun at once.
        """
        losses_below = None if self._last_chance is None else MAX_ATTEMPTS - 1
        but_of = BROWSER_TENANT if self._of_sessions >= max(1, self._jobs_at_once - 1) else None
        async with self._parts.database.write() as store:
            job = await store.claims.claim(KINDS, WORKER_ID, self._lease_s, losses_below, but_of)
        if job is not None and is_last_chance(job):
            self._last_chance = job.id
        return job

    async def _run(self, job: Job, versions: Versions | None) -> None:
        try:
            await self._runner.run(job, versions)
        except Exception:  # the database, say: the job is taken up by the sweep
            log.exception("a job was lost; the worker goes on")
            await asyncio.sleep(_AFTER_FAILURE_S)
        finally:
            self._of_sessions -= job.tenant == BROWSER_TENANT
            if job.id == self._last_chance or job.tenant == BROWSER_TENANT:
                self._parts.signals.ring()  # others like it were left out meanwhile
            if job.id == self._last_chance:
                self._last_chance = None
            self._free.release()
