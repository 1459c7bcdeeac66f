"""What is said about a job while it runs, and the words for its state."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

JobStatus = Literal["queued", "running", "succeeded", "failed", "canceled", "expired"]
KINDS = ("encode", "generate")
"""The kinds of job."""

TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "canceled", "expired"})

SEQ_PER_ATTEMPT = 1000
"""Every attempt has its own block of sequence numbers, so that `seq` grows over restarts too."""


PREVIEW_PREFIX = "data:image/jpeg;base64,"
MAX_PREVIEW_CHARS = 10 * 1024


@dataclass(frozen=True)
class JobEvent:
    """One event of a job. `seq` grows within a job and is the SSE id.

    A preview has no place of its own in that order: it carries the seq of its step, and is told to
    whoever follows at the moment. Nobody remembers it. So with the job's place in the queue.
    """

    seq: int
    kind: Literal["status", "step", "preview", "queue"]
    data: Mapping[str, Any]

    @property
    def remembered(self) -> bool:
        """Whether those who come back hear of it."""
        return self.kind in ("status", "step")

    @property
    def terminal(self) -> bool:
        return self.kind == "status" and self.data["status"] in TERMINAL


def first_seq(attempt: int) -> int:
    """The seq with which attempt 1, 2, ... starts to run; a queued job has seq 1."""
    return attempt * SEQ_PER_ATTEMPT + 1


def requeued_seq(attempt: int) -> int:
    """The seq of a job that waits again because its worker was lost in this attempt."""
    return attempt * SEQ_PER_ATTEMPT + 999


def end_seq(attempt: int, seq: int) -> int:
    """The seq of a job's last event, for a row that stands at `seq` in this attempt."""
    return max(attempt * SEQ_PER_ATTEMPT + 997, seq) + 1


def step_event(attempt: int, done: int, total: int) -> JobEvent:
    """Step `done` of `total` of this attempt, counted from 1."""
    seq = first_seq(attempt) + done
    return JobEvent(seq, "step", {"seq": seq, "step": done, "steps": total})


def preview_event(attempt: int, index: int, done: int, total: int, image: str) -> JobEvent:
    """What picture number `index` of the job looked like around step `done`, as a data: URL."""
    data = {"index": index, "step": done, "steps": total, "image": image}
    return JobEvent(first_seq(attempt) + done, "preview", data)


def attempt_of(seq: int) -> int:
    """The attempt in whose block of numbers this one is."""
    return (seq - 1) // SEQ_PER_ATTEMPT


def status_event(seq: int, status: JobStatus) -> JobEvent:
    return JobEvent(seq, "status", {"seq": seq, "status": status})
