"""A job of the engine: what was asked, how far it is, and what came of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ppd_model.engine.faults import CANCELLED, DEADLINE, FAULT, Fault
from ppd_model.pipeline import Pipeline
from ppd_model.sampling.plan import Plan, plan_of
from ppd_model.sampling.requests import Cancelled, LoadedAdapter
from ppd_model.sampling.rows import Row
from ppd_model.types import Generated, ImageRequest

log = logging.getLogger("ppd.engine")

Picture = npt.NDArray[np.uint8]
Shape = tuple[int, int, int]
"""Of latents: C, H, W."""
Key = tuple[Shape, int]
"""Rows of one latent shape and one number of user tokens are in one batch."""


class EngineFull(RuntimeError):  # noqa: N818  (a refusal)
    """The queue is as long as it may get: come again later."""


class EngineClosed(RuntimeError):  # noqa: N818
    """The engine takes no more jobs."""


class JobError(RuntimeError):
    """The job failed; `code` is one of those in `ppd_model.engine.faults`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


@dataclass(frozen=True)
class Progress:
    """How far the job is as a whole, in steps of its longest picture.

    `previews` are small pictures, uint8 H x W x 3, of those of its pictures (by number) that have
    a new one.
    """

    done: int
    total: int
    previews: Mapping[int, Picture] = field(default_factory=dict)


@dataclass(frozen=True)
class JobTimings:
    """Seconds from arrival to the first step, to the last one, and to the decoded pictures.

    They add up to the whole time from arrival, so the wait for a decoder counts as decoding.
    `steps` are those of all pictures; `shared_with` is the mean number of other jobs in the same
    pass.
    """

    queue_s: float
    denoise_s: float
    decode_s: float
    steps: int
    shared_with: float


@dataclass(kw_only=True, eq=False)
class Ticket:
    """One picture of a job, from the queue to the decoder."""

    job: Job
    index: int
    request: ImageRequest
    shape_CHW: Shape
    plan: Plan
    row: Row | None = None

    @property
    def key(self) -> Key:
        """The batch that its row joins."""
        return self.shape_CHW, self.job.adapter.adapter.projector.tokens

    @property
    def network_rows(self) -> int:
        """Rows that it takes in a pass of the network, at most."""
        return 2 if any(self.plan.guided) else 1

    @property
    def done(self) -> int:
        return 0 if self.row is None else self.row.done

    @property
    def remaining(self) -> int:
        """Steps that are still to be made."""
        return len(self.plan.steps) - self.done

    @property
    def wants_preview(self) -> bool:
        """Every so many steps, but not at the last: then the picture itself is near."""
        every = self.job.preview_every
        return every > 0 and self.remaining > 1 and (self.done + 1) % every == 0


@dataclass(kw_only=True, eq=False)
class Job:
    """Belongs to the engine: the step thread fills it, the decode thread ends it."""

    owner: str
    requests: Sequence[ImageRequest]
    adapter: LoadedAdapter
    arrived_s: float
    deadline_s: float | None
    """On the engine's clock, as all times here."""
    on_progress: Callable[[Progress], None] | None
    cancelled: Callable[[], bool] | None
    preview_every: int
    cancel_asked: bool = False
    first_step_s: float | None = None
    denoised_s: float | None = None
    row_steps: int = 0
    company: int = 0
    told: int = 0
    tickets: list[Ticket] = field(default_factory=list)
    pictures: dict[int, Picture] = field(default_factory=dict)
    future: Future[list[Generated]] = field(default_factory=Future)
    timings: JobTimings | None = None
    ended: bool = False
    """Whether it has a result or has failed."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def total(self) -> int:
        return max(len(ticket.plan.steps) for ticket in self.tickets)

    def unwanted(self, now_s: float) -> Fault | None:
        """Why it shall not go on: ended, cancelled, or late."""
        if self.ended:
            return Fault(FAULT, "another picture of the job has failed")
        if self.cancel_asked or self._cancelled_by_caller():
            return Fault(CANCELLED, "the job was cancelled")
        if self.deadline_s is not None and now_s > self.deadline_s:
            return Fault(
                DEADLINE, f"not done {self.deadline_s - self.arrived_s:.3f} s after arrival"
            )
        return None

    def _cancelled_by_caller(self) -> bool:
        """A caller that cannot say is asked no more, and the job goes on."""
        if self.cancelled is None:
            return False
        try:
            return self.cancelled()
        except Exception:
            log.exception("whether a job is cancelled could not be asked")
            self.cancelled = None
            return False

    def stepped(self, now_s: float, others: int) -> None:
        """One of its pictures made a step in a pass with so many other jobs."""
        self.row_steps += 1
        self.company += others
        if not any(ticket.remaining for ticket in self.tickets):
            self.denoised_s = now_s

    def tell_steps(self) -> None:
        """Tell the progress of all pictures together where it has changed."""
        steps = sum(len(ticket.plan.steps) for ticket in self.tickets)
        done = self.total * self.row_steps // steps
        if done > self.told:
            self.told = done
            self.tell({})

    def tell(self, previews: Mapping[int, Picture]) -> None:
        """Call whoever listens. A listener that raises is not called again."""
        if self.on_progress is None or self.ended:
            return
        try:
            self.on_progress(Progress(self.told, self.total, previews))
        except Exception:
            log.exception("a listener to a job's progress failed")
            self.on_progress = None

    def deliver(self, index: int, picture: Picture, now_s: float) -> bool:
        """Take a finished picture. True if it was the last one, and the job has ended."""
        with self._lock:
            self.pictures[index] = picture
            if self.ended or len(self.pictures) < len(self.requests):
                return False
            self.ended = True
            assert self.first_step_s is not None
            assert self.denoised_s is not None
            self.timings = timings = JobTimings(
                queue_s=self.first_step_s - self.arrived_s,
                denoise_s=self.denoised_s - self.first_step_s,
                decode_s=now_s - self.denoised_s,
                steps=self.row_steps,
                shared_with=self.company / self.row_steps,
            )
            made = [
                Generated(
                    self.pictures[i],
                    request.seed,
                    timings.denoise_s,
                    timings.decode_s,
                    timings.queue_s,
                    timings.shared_with,
                )
                for i, request in enumerate(self.requests)
            ]
        self.future.set_result(made)
        return True

    def fail(self, fault: Fault) -> bool:
        """End it without pictures. False if it had ended before."""
        with self._lock:
            if self.ended:
                return False
            self.ended = True
        cancelled = fault.code == CANCELLED
        self.future.set_exception(Cancelled() if cancelled else JobError(fault.code, fault.detail))
        return True


def new_job(pipeline: Pipeline, requests: Sequence[ImageRequest], **given: Any) -> Job:
    """A job with a ticket for each picture; `given` are fields of it.

    Raises ValueError for requests that cannot be made.
    """
    if not requests:
        raise ValueError("no requests to generate")
    job = Job(requests=tuple(requests), **given)
    for index, request in enumerate(job.requests):
        shape_CHW = pipeline.check([request])
        plan = plan_of(pipeline.preset, request, pipeline.latent_dtype)
        job.tickets.append(
            Ticket(job=job, index=index, request=request, shape_CHW=shape_CHW, plan=plan)
        )
    job.future.set_running_or_notify_cancel()
    return job


class Handle:
    """What a caller holds of a job, from any thread."""

    def __init__(self, job: Job, wake: Callable[[], None]) -> None:
        self._job = job
        self._wake = wake

    @property
    def future(self) -> Future[list[Generated]]:
        """For `asyncio.wrap_future` and callbacks. Its own `cancel` does nothing: see below."""
        return self._job.future

    @property
    def timings(self) -> JobTimings | None:
        return self._job.timings

    def result(self, timeout_s: float | None = None) -> list[Generated]:
        """The pictures in the order of the requests.

        Raises JobError, Cancelled, or TimeoutError when they are not there in time (the job goes
        on).
        """
        return self._job.future.result(timeout_s)

    def done(self) -> bool:
        """Whether `result` has something to say."""
        return self._job.future.done()

    def cancel(self) -> None:
        """Ask it to stop: its rows are free at the next step. A finished job stays finished."""
        self._job.cancel_asked = True
        self._wake()
