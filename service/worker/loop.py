"""START HERE: takes jobs one by one, runs them in the model's thread, records how they ended."""

import asyncio
import contextvars
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

from service.core.errors import JobCanceled, JobFailure
from service.core.messages import JobStatus, end_seq, status_event
from service.core.ports import ModelRuntime, Versions
from service.infra import logs
from service.infra.parts import Parts
from service.infra.repositories import Store
from service.infra.tables import Job, now, seconds_since
from service.worker import handlers, reencoding

log = logging.getLogger("ppd.worker")

MAX_ATTEMPTS = 3
KINDS = ("encode", "generate")
WORKER_ID = "embedded"
_IDLE_S = 5.0
_AFTER_FAILURE_S = 1.0
_SWEEP_EVERY_S = 30.0
_KEEP_IDEMPOTENCY_KEYS = timedelta(hours=48)


class Worker:
    """One model, one thread, one job at a time; encodings before pictures."""

    def __init__(self, parts: Parts, runtime: ModelRuntime, lease_s: float) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ppd-model")
        self._tools = handlers.Tools(
            **parts.by_name(), runtime=runtime, in_model_thread=self._in_thread
        )
        self._lease_s = lease_s
        self._not_ready: str | None = "the model is being loaded"
        self._running: str | None = None
        self._stopping = False

    async def why_not_ready(self) -> str | None:
        """Why no job can be run; None when one can."""
        return self._not_ready

    async def run(self) -> None:
        """Take up what was not finished, load the model, then work until `stop`.

        Without a model the work is to say so: every job fails with that reason.
        """
        sweeper = asyncio.create_task(self._sweep_forever())
        try:
            versions = await self._begin()
            while not self._stopping:
                try:
                    await self._next(versions)
                except Exception:  # the database, say: its jobs are taken up by the sweep
                    log.exception("the worker failed; it goes on")
                    await asyncio.sleep(_AFTER_FAILURE_S)
        finally:
            sweeper.cancel()
            self._not_ready = "the worker has stopped"
            self._thread.shutdown()

    def stop(self) -> None:
        """Let `run` end: pictures stop at their next step and wait for the next start."""
        self._stopping = True
        self._not_ready = "the service is stopping"
        if self._running is not None:
            self._tools.signals.cancel(self._running)
        self._tools.signals.ring()

    async def _begin(self) -> Versions | None:
        """Make ready; None when that fails, with the reason in `not_ready`."""
        try:
            await self._take_up()
            versions: Versions = await self._in_thread(self._tools.runtime.load)
            await reencoding.queue_stale(self._tools.database, versions)
        except Exception as error:
            log.exception("the worker did not start")
            self._not_ready = f"the worker did not start: {error}"
            return None
        if not self._stopping:
            self._not_ready = None
        return versions

    async def _next(self, versions: Versions | None) -> None:
        """Run the next job, or wait for one."""
        async with self._tools.database.write() as store:
            job = await store.jobs.claim(KINDS, WORKER_ID, self._lease_s)
        if job is None:
            await self._tools.signals.wait(_IDLE_S)
        else:
            with logs.of_job(job.id, job.attempt):
                await self._work(job, versions)

    async def _work(self, job: Job, versions: Versions | None) -> None:
        """Run one job to one end."""
        code = ""
        self._running = job.id
        if self._stopping:
            self._tools.signals.cancel(job.id)
        if not self._tools.signals.cancelled(job.id):
            self._tools.events.publish(job.id, status_event(job.seq, "running"))
        renewing = asyncio.create_task(self._renew_forever(job))
        run = handlers.encode if job.kind == "encode" else handlers.generate
        status: JobStatus = "succeeded"
        try:
            if versions is None:
                raise JobFailure("worker_not_started")
            if not await run(self._tools, versions, job):
                return  # canceled or erased meanwhile: somebody else wrote the end
        except JobCanceled:
            if self._stopping:
                async with self._tools.database.write() as store:
                    await store.jobs.release(job)
            return
        except Exception as error:
            status = "failed"
            code = error.code if isinstance(error, JobFailure) else "model_error"
            if not await self._fail(job, error):
                return
        finally:
            renewing.cancel()
            self._running = None
            self._tools.signals.forget(job.id)
        self._tools.metrics.job_ended(job.kind, status, seconds_since(job.created_at), code)
        self._tools.events.publish(job.id, status_event(end_seq(job.attempt, 0), status))

    async def _fail(self, job: Job, error: Exception) -> bool:
        """Write down why; false when the job is not ours any more."""
        if isinstance(error, JobFailure):
            code, detail = error.code, error.detail
        else:
            log.error("the job failed", exc_info=error)
            code, detail = "model_error", type(error).__name__
        async with self._tools.database.write() as store:
            ours = await store.jobs.finish(job.id, job.attempt, "failed", error=(code, detail))
            if ours:
                await _fail_profile(store, job, code)
        return ours

    async def _take_up(self) -> None:
        """What the last process left behind: jobs run again, or fail after the third time."""
        async with self._tools.database.write() as store:
            await self._requeue(store, lease_ended=None)

    async def _requeue(self, store: Store, lease_ended: datetime | None) -> None:
        again, spent = await store.jobs.requeue_orphans(MAX_ATTEMPTS, lease_ended, self._running)
        for job in spent:
            await _fail_profile(store, job, "worker_crash")
            took_s = seconds_since(job.created_at)
            self._tools.metrics.job_ended(job.kind, "failed", took_s, "worker_crash")
        if again or spent:
            log.warning("jobs left unfinished: %d run again, %d failed", again, len(spent))

    async def _renew_forever(self, job: Job) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            async with self._tools.database.write() as store:
                await store.jobs.renew(job.id, job.attempt, self._lease_s)

    async def _sweep_forever(self) -> None:
        while True:
            try:
                await self._sweep()
            except Exception:
                log.exception("the sweep failed; it comes again")
            await asyncio.sleep(_SWEEP_EVERY_S)

    async def _sweep(self) -> None:
        """End what waited too long, take up what was lost, forget what is to be forgotten."""
        async with self._tools.database.write() as store:
            expired = await store.jobs.expire()
            await self._requeue(store, lease_ended=now())
            await store.idempotency.prune(_KEEP_IDEMPOTENCY_KEYS)
        for job in expired:
            self._tools.metrics.job_ended(job.kind, "expired", seconds_since(job.created_at))
            self._tools.events.publish(job.id, status_event(job.seq, "expired"))
        await self._tools.database.scrub_again()

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()  # the thread's log lines are this job's too
        return await loop.run_in_executor(self._thread, context.run, function, *args)


async def _fail_profile(store: Store, job: Job, code: str) -> None:
    if job.profile_pk is not None:
        await store.profiles.finish(job.profile_pk, "failed", error_code=code)
