"""START HERE of `ppd worker`: queue -> ticket -> the job whose turn it is -> model.

The process says that it is there, loads the model, and takes tickets until the first SIGTERM or
SIGINT. Then it drains: what runs may end within the grace, what has not ended waits again. A model
that breaks ends it in the same way, with status 1: whoever started it starts another one.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy.exc import IntegrityError

from service.actions.housekeeping import keep_house
from service.core.ports import ModelRuntime, Versions
from service.infra.adapters import AdapterCopies
from service.infra.ending import beside
from service.infra.parts import Parts
from service.infra.pictures.mark import store_mark
from service.infra.queue.tickets import Tickets
from service.infra.sql.jobs.equal import ONE_RUNS
from service.infra.sql.tables import Job
from service.worker import reencoding
from service.worker.presence import Presence
from service.worker.runner import Runner
from service.worker.sweep import MAX_ATTEMPTS, Sweep, is_last_chance

log = logging.getLogger("ppd.worker")

_LONGEST_UNTIL_NOTICED_S = 2.0
"""How long a cancellation may be lost on its way before the row is looked at."""
_AFTER_FAILURE_S = 1.0
_LAST_WORDS_S = 2.0
_LOOK_AT_MODEL_EVERY_S = 1.0
_KEEP_SILENT_WORKERS = timedelta(minutes=10)


@dataclass(frozen=True)
class Terms:
    """What a worker process takes on, and how it holds on to it."""

    kinds: frozenset[str]
    concurrency: int
    """Jobs under way at once."""
    lease_s: float
    grace_s: float
    """From the signal to the end of the process."""
    seen_every_s: float


class WorkerProcess:
    """One model, one thread, several jobs under way; any number of these on any machines."""

    def __init__(
        self,
        parts: Parts,
        tickets: Tickets,
        runtime: ModelRuntime,
        terms: Terms,
        adapters: AdapterCopies,
    ) -> None:
        self._parts = parts
        self._tickets = tickets
        self._terms = terms
        self._id = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._runner = Runner(parts, runtime, terms.lease_s, adapters)
        self._presence = Presence(
            parts.database,
            self._id,
            terms.kinds,
            lambda: store_mark(parts.images),
            terms.concurrency,
            self._runner.pace,
        )
        self._sweep = Sweep(parts, lambda: self._runner.running, [self._look_after_tickets])
        self._claiming = asyncio.Lock()
        self._last_chance: str | None = None
        """The job under way that fails when this process is lost too."""
        self._stop = asyncio.Event()
        self._versions: Versions | None = None
        self._broken: str | None = None
        """Why the model makes no pictures any more."""

    async def run(self) -> int:
        """Work until told to stop; the exit status of the process."""
        lease_s = self._terms.lease_s
        with self._stopped_by_signals():
            async with (
                self._tickets.opened(self._take_turn),
                beside(
                    self._presence.forever(self._terms.seen_every_s),
                    self._sweep.forever(lease_s / 3),
                    self._runner.renew_forever(min(_LONGEST_UNTIL_NOTICED_S, lease_s / 3)),
                    self._watch_the_model(),
                    keep_house(self._parts),
                ),
            ):
                try:
                    self._versions = await self._load()
                except Exception as error:
                    log.exception("the worker did not start")
                    self._presence.say(f"a worker did not start: {error}")
                    await self._presence.write()  # stays, so that readiness can say why
                    return 1
                if self._versions is not None:
                    self._presence.say(None, self._versions)
                    log.info("%s takes %s", self._id, " and ".join(sorted(self._terms.kinds)))
                    await self._take_tickets()
            if self._broken is not None:
                await self._say_last(self._presence.write())  # stays, as above
                return 1
            await self._say_last(self._presence.leave())
        return 0

    async def _load(self) -> Versions | None:
        """The model's versions; None when told to stop meanwhile, which no loading survives."""
        loading = asyncio.ensure_future(self._runner.load())
        await self._either(loading)
        return loading.result() if loading.done() else None

    async def _watch_the_model(self) -> None:
        while True:
            if self._look_at_the_model():
                return
            await asyncio.sleep(_LOOK_AT_MODEL_EVERY_S)

    def _look_at_the_model(self) -> bool:
        """Whether it is broken; then the process stops."""
        if self._broken is None:
            self._broken = self._runner.broken()
            if self._broken is not None:
                log.error("the model has stopped, and so does the worker: %s", self._broken)
                self._stop.set()
        return self._broken is not None

    async def _take_tickets(self) -> None:
        """Work until told to stop, then drain. A lost database is waited for."""
        terms = self._terms
        to_reencode = "encode" in terms.kinds
        while not self._stop.is_set():
            try:
                if to_reencode:
                    assert self._versions is not None
                    await reencoding.queue_stale(self._parts.database, self._versions)
                    to_reencode = False
                taking = asyncio.create_task(
                    self._tickets.take(terms.kinds, terms.concurrency, dead_after_s=terms.lease_s)
                )
                await self._either(taking)
                if self._stop.is_set():
                    await self._drain(taking)
                else:
                    taking.result()
            except Exception:
                log.exception("tickets cannot be taken; it is tried again")
                await self._either(asyncio.ensure_future(asyncio.sleep(_AFTER_FAILURE_S)))

    async def _take_turn(self, kind: str) -> None:
        """Run the job whose turn it is, among all that this process takes."""
        job = await self._claim(kind)
        if job is None:
            return
        try:
            await self._runner.run(job, self._versions)
        finally:
            if job.id == self._last_chance:
                self._last_chance = None
        if is_last_chance(job):
            await self._tickets.top_up()  # others like it were left out meanwhile

    async def _claim(self, kind: str) -> Job | None:
        """The next job; None when there is none, or when it is too late to begin one.

        Turns go before kinds, so a ticket of one kind may be spent on a job of another. Then it is
        put out again, for workers that take its kind alone.

        Of the jobs on their last chance one at a time.
        """
        async with self._claiming:
            while True:
                try:
                    job = await self._claim_now(kind)
                    break
                except IntegrityError as error:  # another worker has just begun an equal request
                    if ONE_RUNS not in str(error.orig):
                        raise
            # Not before the commit: one that fails leaves nothing under way.
            if job is not None and is_last_chance(job):
                self._last_chance = job.id
        return job

    async def _claim_now(self, kind: str) -> Job | None:
        async with self._parts.database.write() as store:
            if self._look_at_the_model() or self._stop.is_set():
                await store.jobs.put_ticket_back(kind)
                return None
            job = await store.claims.claim(
                self._terms.kinds,
                self._id,
                self._terms.lease_s,
                losses_below=None if self._last_chance is None else MAX_ATTEMPTS - 1,
            )
            if job is not None and job.kind != kind:
                await store.jobs.put_ticket_back(kind)
        return job

    async def _look_after_tickets(self) -> None:
        """The sweep's part for what only production has."""
        await self._tickets.clear(self._terms.lease_s)
        await self._tickets.top_up()
        async with self._parts.database.write() as store:
            await store.workers.prune(_KEEP_SILENT_WORKERS)

    async def _drain(self, taking: "asyncio.Task[None]") -> None:
        """Take no further ticket; let jobs end; what does not end in time waits for others."""
        why = "the worker is stopping"
        if self._broken is not None:
            why = f"the model has stopped: {self._broken}"
        self._presence.say(why, self._versions)
        taking.cancel()
        grace_s = self._terms.grace_s
        last_words_s = min(_LAST_WORDS_S, grace_s / 6)
        await asyncio.wait({taking}, timeout=grace_s - 3 * last_words_s)
        if not taking.done():
            log.warning("%d jobs did not end in time; they wait again", len(self._runner.running))
            self._runner.stop()
            await asyncio.wait({taking}, timeout=last_words_s)
        if not taking.done():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._runner.release(), last_words_s)

    async def _say_last(self, words: Coroutine[Any, Any, None]) -> None:
        """Say in the table of workers how this one ended; without a database it is pruned later."""
        try:
            await asyncio.wait_for(words, _LAST_WORDS_S)
        except Exception:
            log.exception("this worker could not say that it has gone")

    async def _either(self, work: "asyncio.Future[Any]") -> None:
        """Return when the work is done, or when told to stop."""
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()

    @contextlib.contextmanager
    def _stopped_by_signals(self) -> Iterator[None]:
        """The first SIGTERM or SIGINT drains; the second ends the process where it stands."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)

        def stop(number: signal.Signals) -> None:
            if self._stop.is_set():
                os._exit(128 + number)
            log.info("%s: the worker stops", number.name)
            self._stop.set()

        for number in numbers:
            loop.add_signal_handler(number, stop, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
