"""Runs jobs that were claimed, in the model's thread, and records how they ended."""

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from sqlalchemy.exc import OperationalError

from service.actions import equal_requests
from service.core.errors import DatabaseAway, JobCanceled, JobFailure, ModelLost
from service.core.messages import JobStatus, end_seq, status_event
from service.core.ports import ModelRuntime, Versions
from service.infra import logs
from service.infra.adapters import AdapterCopies
from service.infra.parts import Parts
from service.infra.sql.store import Store
from service.infra.sql.tables import Job, seconds_since
from service.worker import handlers
from service.worker.presence import MeasuredPace

log = logging.getLogger("ppd.worker")


class Run:
    """One attempt at a job in this process."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.stopped = threading.Event()
        """Set to end it at its next step. Local, unlike a signal: another process may run it."""
        self.error_code = ""
        """Why it failed, once it has."""
        self.put_back = False
        """Whether the job is to wait again once it has stopped."""

    @property
    def key(self) -> tuple[str, int]:
        return self.job.id, self.job.attempt


class Runner:
    """Any number of jobs under way, and as many of pictures in work as the model takes at once.

    Each of these has a thread, in which it waits for the model. All else that is asked of the model
    comes from one thread; a model of one job at a time has no other.
    """

    def __init__(
        self, parts: Parts, runtime: ModelRuntime, lease_s: float, adapters: AdapterCopies
    ) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ppd-model")
        self._picture_threads = self._thread
        if runtime.jobs_at_once > 1:
            self._picture_threads = ThreadPoolExecutor(
                max_workers=runtime.jobs_at_once, thread_name_prefix="ppd-pictures"
            )
        self.pace = MeasuredPace()
        self._tools = handlers.Tools(
            **parts.by_name(),
            pace=self.pace,
            runtime=runtime,
            adapters=adapters,
            in_model_thread=partial(_in_thread, self._thread),
            in_picture_thread=partial(_in_thread, self._picture_threads),
        )
        self._lease_s = lease_s
        self._runs: dict[tuple[str, int], Run] = {}
        self._stopping = False

    async def load(self) -> Versions:
        """Read the weights, in the model's thread."""
        versions: Versions = await self._tools.in_model_thread(self._tools.runtime.load)
        return versions

    @property
    def running(self) -> Collection[str]:
        return [job_id for job_id, _ in self._runs]

    def broken(self) -> str | None:
        """Why the model makes no pictures any more."""
        return self._tools.runtime.broken()

    def stop(self) -> None:
        """End what is under way, and what comes, at its next step; these jobs will wait again."""
        self._stopping = True
        for run in self._runs.values():
            _put_back(run)

    async def release(self) -> None:
        """Let the jobs under way wait again, whatever the model's thread still does with them."""
        async with self._tools.database.write() as store:
            for run in self._runs.values():
                await store.claims.release(run.job)

    def close(self) -> None:
        """Wait for the model's threads to end."""
        self._picture_threads.shutdown()
        self._thread.shutdown()
        self._tools.runtime.close()

    async def run(self, job: Job, versions: Versions | None) -> None:
        """Run one job to one end; without a model it fails with that reason.

        Raises DatabaseAway when the database is lost: the job runs again when its lease ends.
        """
        with logs.about(job_id=job.id, attempt=job.attempt):
            await self._run(Run(job), versions)

    async def _run(self, run: Run, versions: Versions | None) -> None:
        job = run.job
        self._runs[run.key] = run
        if self._stopping:
            _put_back(run)
        if not self._cancelled(run):
            self._tools.events.publish(job.id, status_event(job.seq, "running"))
        try:
            status = await self._end_of(run, versions)
        finally:
            del self._runs[run.key]
            self._tools.signals.forget(job.id)
        if status is not None:
            took_s = seconds_since(job.created_at)
            self._tools.metrics.job_ended(job.kind, status, took_s, run.error_code)
            self._tools.events.publish(job.id, status_event(end_seq(job.attempt, 0), status))
            await self._tell_equal(job, versions, status)

    async def _tell_equal(self, job: Job, versions: Versions | None, status: JobStatus) -> None:
        """Answer those that waited for the same pictures, or let them run."""
        try:
            if status == "succeeded" and versions is not None:
                await equal_requests.answer_waiting(self._tools, versions, job)
            else:
                await equal_requests.let_go(self._tools, job)
        except Exception:  # this job has ended well; they are run like any others
            log.exception("jobs that waited for an equal one could not be answered")

    async def renew_forever(self, every_s: float) -> None:
        """Keep the leases of what is under way; stop what is not ours any more.

        That is how a lost cancellation arrives, an erasure, and a job that another worker took.
        """
        while True:
            await asyncio.sleep(every_s)
            try:
                await self._renew()
            except Exception:
                log.exception("leases could not be renewed; it is tried again")

    async def _renew(self) -> None:
        held = list(self._runs.values())
        if not held:
            return
        async with self._tools.database.write() as store:
            ours = await store.claims.renew([run.key for run in held], self._lease_s)
        for run in held:
            if run.key not in ours:
                run.stopped.set()

    def _cancelled(self, run: Run) -> bool:
        return run.stopped.is_set() or self._tools.signals.cancelled(run.job.id)

    async def _end_of(self, run: Run, versions: Versions | None) -> JobStatus | None:
        """Run it; the end that was written, or None when another one was, or none is to be."""
        job = run.job
        handler = handlers.encode if job.kind == "encode" else handlers.generate
        try:
            if versions is None:
                raise JobFailure("worker_not_started")
            ours = await handler(self._tools, versions, job, lambda: self._cancelled(run))
            return "succeeded" if ours else None
        except JobCanceled:
            if run.put_back:
                async with self._tools.database.write() as store:
                    await store.claims.release(job)
            return None
        except ModelLost:
            # As if the process had been killed: the lease ends, which counts as a loss, so what
            # breaks one model after the other fails at the third.
            log.error("the model is lost: the job runs again when its lease ends")
            return None
        except (DatabaseAway, OperationalError):
            raise
        except Exception as error:
            return "failed" if await self._fail(run, error) else None

    async def _fail(self, run: Run, error: Exception) -> bool:
        """Write down why; false when the job is not ours any more."""
        job = run.job
        if isinstance(error, JobFailure):
            code, detail = error.code, error.detail
        else:
            log.error("the job failed", exc_info=error)
            code, detail = "model_error", type(error).__name__
        run.error_code = code
        async with self._tools.database.write() as store:
            ours = await store.claims.finish(job.id, job.attempt, "failed", error=(code, detail))
            if ours:
                await fail_profile(store, job, code)
        return ours


async def _in_thread(threads: ThreadPoolExecutor, function: Callable[..., Any], *args: Any) -> Any:
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()  # the thread's log lines are this job's too
    return await loop.run_in_executor(threads, context.run, function, *args)


async def fail_profile(store: Store, job: Job, code: str) -> None:
    """The profile version that the job was to read is not coming."""
    if job.profile_pk is not None:
        await store.profiles.finish(job.profile_pk, "failed", error_code=code)


def _put_back(run: Run) -> None:
    run.put_back = True
    run.stopped.set()
