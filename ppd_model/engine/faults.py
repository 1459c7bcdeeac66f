"""Faults of the model's work: told apart while they are caught, handled after.

What is left of an exception is its code and its text. While the exception itself lives, so do the
frames it passed through and the tensors in them: after running out of memory that is what must go
before anything is tried again.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from ppd_model.sampling.requests import Cancelled, NumericalError

log = logging.getLogger("ppd.engine")

Result = TypeVar("Result")

OUT_OF_MEMORY = "out_of_memory"
NUMERICAL = "numerical_error"
DEADLINE = "deadline_exceeded"
PREPARATION = "preparation_failed"
CLOSED = "engine_closed"
FAULT = "engine_fault"
CANCELLED = "cancelled"

ALLOCATOR_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "alloc_failed",
    "not enough memory",
)


@dataclass(frozen=True)
class Fault:
    """What went wrong: a stable code and a text for the log."""

    code: str
    detail: str


def attempt(work: Callable[[], Result], what: str) -> Result | Fault:
    """The result, or the fault that took its place. `what` is for the log."""
    try:
        return work()
    except Cancelled:
        return Fault(CANCELLED, what)
    except NumericalError as error:
        return Fault(NUMERICAL, str(error))
    except Exception as error:
        code = OUT_OF_MEMORY if is_out_of_memory(error) else FAULT
        if code == FAULT:  # without the message, which may quote a prompt
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("%s failed: %s\n%s", what, type(error).__name__, where)
        return Fault(code, f"{what}: {type(error).__name__}: {error}")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocator refused, of torch, of its libraries or of Python."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in text for part in ALLOCATOR_MESSAGES)


def give_memory_back(device: torch.device) -> None:
    """What torch keeps for later goes back to the device. Call it after `attempt`, not inside."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
