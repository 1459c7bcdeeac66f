"""START HERE for serving: many people's jobs from one model, in one running batch.

A job is one or more pictures. Each is a row that joins the running batch at the next step, whoever
else is in it, and leaves when its own steps are done: every row has its own time, noise, prompt,
user, adapter, strength and guidance, so it comes out as it does alone. One thread, and no other,
runs Stage C; latents that are done go to the thread of Stages B and A.

    engine = Engine(Pipeline.load("mini"))
    handle = engine.submit([ImageRequest("a boat at the sea", seed=1)], owner="ann")
    (generated,) = handle.result()

`submit` and everything of a handle may be called from any thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ppd_model.engine.admission import StepCurve
from ppd_model.engine.batch_group import BatchGroup
from ppd_model.engine.batch_groups import BatchGroups
from ppd_model.engine.decode_thread import DecodeThread, Glimpse, Latent
from ppd_model.engine.fair_queue import FairQueue
from ppd_model.engine.faults import (
    CLOSED,
    FAULT,
    OUT_OF_MEMORY,
    PREPARATION,
    Fault,
    attempt,
    give_memory_back,
)
from ppd_model.engine.jobs import (
    EngineClosed,
    EngineFull,
    Handle,
    Job,
    Key,
    Picture,
    Progress,
    Shape,
    Ticket,
    new_job,
)
from ppd_model.engine.step_times import StepTimes
from ppd_model.nets.previewer import Previewer
from ppd_model.pipeline import Pipeline
from ppd_model.sampling.conditioning import Conditioning
from ppd_model.sampling.devices import DeviceSupport, enter_thread, support_of
from ppd_model.sampling.forward import leave_uncompiled
from ppd_model.sampling.requests import LoadedAdapter
from ppd_model.sampling.rows import Row
from ppd_model.types import CacheState, EngineState, ImageRequest

log = logging.getLogger("ppd.engine")

QUEUED_ROWS = 256
REASON_AT_MOST = 200


class Engine:
    """Serves jobs from `pipeline`, whose Stage C and decoder are its own from now on.

    `previewer` makes the pictures of running jobs; `threads` are torch's in each of the engine's
    two threads; `queued_rows` bounds the pictures that wait. `curves` are step times known
    beforehand, by latent shape: the default shape's is measured at the start unless given.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        previewer: Previewer | None = None,
        *,
        threads: int = 1,
        queued_rows: int = QUEUED_ROWS,
        support: DeviceSupport | None = None,
        curves: Mapping[Shape, StepCurve] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if pipeline.offload:
            raise ValueError("a pipeline that offloads its parts cannot run them side by side")
        self._pipeline = pipeline
        self._support = support or support_of(pipeline.device)
        self._threads = threads
        self._queued_rows = queued_rows
        self._clock = clock
        self._default_adapter = pipeline.installed
        self._conditioning = Conditioning(pipeline)
        self._decoding = DecodeThread(
            pipeline.decoder,
            None
            if previewer is None
            else previewer.to(pipeline.device, pipeline.latent_dtype).eval(),
            self._support,
            pipeline.device,
            threads,
        )
        self._previews = previewer is not None
        self._changed = threading.Condition()
        self._queue: FairQueue[Ticket] = FairQueue()
        self._closed = False
        # What follows belongs to the step thread; `snapshot` only looks.
        self._groups = BatchGroups(pipeline)
        self._times = StepTimes(pipeline, curves)
        self._tickets: dict[Row, Ticket] = {}
        self._counts: Counter[str] = Counter()
        self._broken: str | None = None
        self._doubtful: deque[tuple[Job, Fault]] = deque()
        """Jobs that failed at the decoder, until it is known whether the device is to blame."""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ppd-steps", daemon=True)
        self._decoding.start()
        self._thread.start()

    # From any thread

    def submit(
        self,
        requests: Sequence[ImageRequest],
        *,
        owner: str = "",
        adapter: LoadedAdapter | None = None,
        timeout_s: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        preview_every: int = 0,
    ) -> Handle:
        """Hand in a job. `owner` is whose turn it takes, `shop/ann` one of `shop`'s; `timeout_s`
        bounds all of it, waiting too.

        `adapter` is one of `Pipeline.adapter_from`; without it, the one that was in place when the
        engine began. `on_progress` is called from the engine's threads, whenever the job is a step
        further and, every `preview_every` steps (0: never), with previews; `cancelled` is asked
        there before each step, as an alternative to `Handle.cancel`. Both should be quick.
        Raises ValueError for a request that cannot be made, EngineFull, EngineClosed.
        """
        if timeout_s is not None and not timeout_s > 0:
            raise ValueError(f"timeout_s must be positive, got {timeout_s}")
        now_s = self._clock()
        job = new_job(
            self._pipeline,
            requests,
            owner=owner,
            adapter=adapter or self._default_adapter,
            arrived_s=now_s,
            deadline_s=None if timeout_s is None else now_s + timeout_s,
            on_progress=on_progress,
            cancelled=cancelled,
            preview_every=preview_every if self._previews else 0,
        )
        with self._changed:
            if self._closed:
                raise EngineClosed("the engine takes no more jobs")
            if len(self._queue) + len(requests) > self._queued_rows:
                self._counts["refused"] += 1
                raise EngineFull(
                    f"{len(self._queue)} pictures wait, {self._queued_rows} may: "
                    f"no room for {len(requests)}"
                )
            for ticket in job.tickets:
                self._queue.push(owner, ticket.plan.network_rows, ticket)
            self._changed.notify()
        return Handle(job, self._wake)

    def wait_until_ready(self, timeout_s: float | None = None) -> bool:
        """Whether t(n) has been measured by then."""
        return self._ready.wait(timeout_s)

    @property
    def broken(self) -> str | None:
        """Why no picture will be made any more; None while they are, and for one that was closed.

        What was here has ended with `engine_closed`. Only a new process can be relied on: a device
        that failed may refuse everything that this one asks of it.
        """
        if self._broken is None and not self._closed and not self._decoding.alive:
            return "the decode thread has ended"
        return self._broken

    def close(self) -> None:
        """Take no more jobs, end those that are here with `engine_closed`, and stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._decoding.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def snapshot(self) -> EngineState:
        """Counters of the moment, and of all time (`counts`), for a page of metrics."""
        groups = list(self._groups)
        return {
            "queued_rows": len(self._queue),
            "queued_rows_at_most": self._queued_rows,
            "running_rows": sum(len(group.batch.rows) for group in groups),
            "network_rows": sum(group.batch.network_rows for group in groups),
            "decoding_rows": self._decoding.waiting + self._decoding.in_work,
            "decoded_pictures": self._decoding.pictures,
            "decoded_batches": self._decoding.batches,
            "previews": self._decoding.previews,
            "step_s": self._times.seconds(),
            "texts": _hits(self._conditioning.texts),
            "users": _hits(self._conditioning.users),
            "counts": dict(self._counts),
        }

    # In the step thread

    def _run(self) -> None:
        enter_thread(self._pipeline.device, self._threads)
        try:
            with torch.inference_mode():
                self._know_the_default_curve()
                while self._broken is None and self._wait_for_work():
                    fault = attempt(self._tick, "the step loop")
                    if isinstance(fault, Fault) and not self._breaks(fault):
                        self._fail_running(fault)
        finally:  # whatever ends this thread, nobody waits for it in vain
            with self._changed:
                if not self._closed:
                    self._broken = self._broken or "the step thread has ended"
                self._closed = True
                waiting = self._queue.take_out(lambda ticket: True)
                doubtful = [job for job, _ in self._doubtful]
            tickets = [*waiting, *self._running_tickets()]
            for job in [*doubtful, *(ticket.job for ticket in tickets)]:
                self._fail(job, Fault(CLOSED, "the engine was closed"))

    def _know_the_default_curve(self) -> None:
        def measure() -> StepCurve:
            return self._times.measure(self._support, self._conditioning)

        if not self._times.known:
            measured = attempt(measure, "measuring the step times")
            if isinstance(measured, Fault) and self._support.forward != "eager":
                log.warning("%s do not work here: steps run without", self._support.forward)
                self._support = replace(self._support, forward="eager", sizes=())
                leave_uncompiled(self._pipeline.stage_c)
                measured = attempt(measure, "measuring the step times")
            if isinstance(measured, Fault):  # without a curve, one picture at a time
                self._breaks(measured)
                measured = StepCurve({1: 1.0})
            self._times.learn(measured)
        self._ready.set()

    def _breaks(self, fault: Fault) -> bool:
        """Whether after this fault not even a step of the engine's own is possible.

        Then no job is to blame and none can be made: the thread ends. A job's own fault leaves the
        device as it was.
        """
        if self._broken is None and fault.code == FAULT:
            tried = attempt(partial(_step_alone, self._pipeline), "a step of the engine's own")
            if isinstance(tried, Fault) and tried.code == FAULT:
                self._broken = tried.detail.partition("\n")[0][:REASON_AT_MOST]
                log.error("the engine can make no more steps: it ends")
        return self._broken is not None

    def _tick(self) -> None:
        """One step of one batch, with whoever may join it."""
        while self._doubtful and self._broken is None:
            job, fault = self._doubtful[0]
            self._fail(job, replace(fault, code=CLOSED) if self._breaks(fault) else fault)
            self._doubtful.popleft()
        self._let_the_unwanted_go()
        self._admit()
        group = self._groups.next()
        if group is not None:
            self._step(group)

    def _wait_for_work(self) -> bool:
        """Sleeps while there is none. False when the engine is closed."""
        with self._changed:
            while not (self._closed or self._queue or self._doubtful or self._running_tickets()):
                self._changed.wait()
            return not self._closed

    def _let_the_unwanted_go(self) -> None:
        """Cancelled, late and failed jobs give up their place in the queue and their rows."""
        now_s = self._clock()
        with self._changed:
            waiting = self._queue.take_out(lambda ticket: ticket.job.unwanted(now_s) is not None)
        for ticket in waiting:
            self._fail_if_unwanted(ticket.job, now_s)
        for group in self._groups:
            for row in [*group.batch.rows, *group.parked]:
                job = self._tickets[row].job
                self._fail_if_unwanted(job, now_s)
                if job.ended:
                    self._release(group, row)

    def _fail_if_unwanted(self, job: Job, now_s: float) -> None:
        why_not = job.unwanted(now_s)
        if why_not is not None:
            self._fail(job, why_not)

    def _admit(self) -> None:
        """First rows that were set aside; then the queue, in fair order, while it pays."""
        for group in self._groups:
            while group.parked and self._has_room(group, group.parked[0].network_rows):
                group.join(group.parked.popleft())
        while self._queue:
            with self._changed:
                ticket = self._queue.pop(partial(self._may_join, set()))
            if ticket is None:
                return
            self._begin(ticket)

    def _may_join(self, full: set[Key], ticket: Ticket) -> bool:
        """Whether there is room. Where one has found none, none that comes later overtakes it."""
        group = self._groups.get(ticket.key)
        if ticket.key not in full and (
            group is None or (not group.parked and self._has_room(group, ticket.network_rows))
        ):
            return True
        full.add(ticket.key)
        return False

    def _has_room(self, group: BatchGroup, more: int) -> bool:
        return group.has_room(more, self._times.of(group.batch.shape_CHW))

    def _begin(self, ticket: Ticket) -> None:
        """Prepare a row and let it join. What goes wrong here is this job's alone."""
        fault = attempt(lambda: self._join(ticket), "preparing a picture")
        if isinstance(fault, Fault):
            if fault.code == OUT_OF_MEMORY:
                self._give_memory_back()
                fault = attempt(lambda: self._join(ticket), "preparing a picture")
            if isinstance(fault, Fault):
                code = CLOSED if self._breaks(fault) else _preparation_code(fault)
                self._fail(ticket.job, replace(fault, code=code))

    def _join(self, ticket: Ticket) -> None:
        row = self._conditioning.row(ticket.request, ticket.job.adapter)
        self._groups.get_or_make(ticket.key, self._support).join(row)
        ticket.row = row
        self._tickets[row] = ticket

    def _step(self, group: BatchGroup) -> None:
        """One step of a batch; out of memory, half of it is set aside and the rest tried again."""
        now_s = self._clock()
        for row in group.batch.rows:
            job = self._tickets[row].job
            job.first_step_s = now_s if job.first_step_s is None else job.first_step_s
        curve = self._times.of(group.batch.shape_CHW)
        guessed = group.step(curve, self._wants_preview)
        if isinstance(guessed, Fault) and guessed.code == OUT_OF_MEMORY:
            self._counts["out_of_memory"] += 1
            self._give_memory_back()
            group.halve()
            guessed = group.step(curve, self._wants_preview)
        if isinstance(guessed, Fault):
            if self._breaks(guessed):
                return
            if guessed.code == OUT_OF_MEMORY or len(group.batch.rows) == 1:
                self._fail_batch(group, guessed)
                return
            guessed, faults = group.step_apart(curve, self._wants_preview)
            for row, fault in faults.items():
                self._fail(self._tickets.pop(row).job, fault)
        self._after_step(group, guessed)

    def _wants_preview(self, row: Row) -> bool:
        return self._tickets[row].wants_preview

    def _after_step(self, group: BatchGroup, guessed: dict[Row, torch.Tensor]) -> None:
        """Tell who listens, and send on who has arrived."""
        now_s = self._clock()
        rows = list(group.batch.rows)
        jobs = {self._tickets[row].job: None for row in rows}
        self._counts["passes"] += 1
        self._counts["row_steps"] += len(rows)
        for row in rows:
            self._tickets[row].job.stepped(now_s, len(jobs) - 1)
        for job in jobs:
            job.tell_steps()
        for row, latent_CHW in guessed.items():
            self._show(self._tickets[row], latent_CHW)
        for row in rows:
            if row.arrived:
                ticket = self._tickets[row]
                self._release(group, row)
                self._decode(ticket, row)

    def _show(self, ticket: Ticket, latent_CHW: torch.Tensor) -> None:
        def deliver(picture: Picture) -> None:
            ticket.job.tell({ticket.index: picture})

        self._decoding.show(Glimpse(key=ticket, latent_CHW=latent_CHW, deliver=deliver))

    def _decode(self, ticket: Ticket, row: Row) -> None:
        assert row.latent_CHW is not None
        job = ticket.job

        def deliver(picture: Picture) -> None:
            if job.deliver(ticket.index, picture, self._clock()):
                self._counts["jobs"] += 1

        self._decoding.put(
            Latent(
                latent_CHW=row.latent_CHW,
                pooled_11D=row.prompt.pooled_11D,
                generator=row.generator,
                unwanted=lambda: job.unwanted(self._clock()),
                deliver=deliver,
                fail=lambda fault: self._fail_at_decoder(job, fault),
            )
        )

    def _release(self, group: BatchGroup, row: Row) -> None:
        group.release(row)
        del self._tickets[row]

    def _fail(self, job: Job, fault: Fault) -> None:
        if job.fail(fault):
            with self._changed:
                self._counts[f"failed_{fault.code}"] += 1
                self._changed.notify()

    def _fail_at_decoder(self, job: Job, fault: Fault) -> None:
        """In the decode thread: whether the device is lost is for the step thread to find out."""
        with self._changed:
            if fault.code == FAULT and not self._closed:
                self._doubtful.append((job, fault))
                self._changed.notify()
                return
        self._fail(job, fault)

    def _fail_batch(self, group: BatchGroup, fault: Fault) -> None:
        """The step could not be made with so few: whoever is left in it fails, others go on."""
        for row in group.batch.clear():
            self._fail(self._tickets.pop(row).job, fault)

    def _fail_running(self, fault: Fault) -> None:
        """A fault of the engine's own: what runs fails; what waits does if nothing ran."""
        failing = self._running_tickets()
        if not failing:  # else it would come again, and again
            with self._changed:
                failing = self._queue.take_out(lambda ticket: True)
        for ticket in failing:
            self._fail(ticket.job, fault)
        self._tickets.clear()
        self._groups.clear()

    def _give_memory_back(self) -> None:
        self._conditioning.clear()
        give_memory_back(self._pipeline.device)

    def _running_tickets(self) -> list[Ticket]:
        return list(self._tickets.values())

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()


def _step_alone(pipeline: Pipeline) -> None:
    """One step of an empty prompt, past everything that is kept, and waited for."""
    request = ImageRequest("", seed=0, steps=1, guidance_scale=1.0)
    generator = torch.Generator().manual_seed(request.seed)
    pipeline.sample_latents([request], [generator]).cpu()


def _preparation_code(fault: Fault) -> str:
    return PREPARATION if fault.code == FAULT else fault.code


def _hits(cache: Any) -> CacheState:
    return {"kept": len(cache), "hits": cache.hits, "misses": cache.misses}
