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


@dataclass(frozen=True)
class JobEvent:
    """One event of a job. `seq` grows within a job and is the SSE id."""

    seq: int
    kind: Literal["status", "step"]
    data: Mapping[str, Any]

    @property
    def terminal(self) -> bool:
        """Whether nothing follows."""
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


def status_event(seq: int, status: JobStatus) -> JobEvent:
    """The job is now in this state."""
    return JobEvent(seq, "status", {"seq": seq, "status": status})
