"""Wakes the worker of this process, and carries cancellations into its thread."""

import asyncio
import contextlib
import threading
from collections import OrderedDict
from typing import Any, Self

_REMEMBERED = 65_536


class JobSignals:
    """Wakes the worker of this process, and carries cancellations to a job that it runs."""

    def __init__(self) -> None:
        self._bell = asyncio.Event()
        self._lock = threading.Lock()
        self._cancelled: OrderedDict[str, None] = OrderedDict()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: Any) -> None: ...

    def ring(self) -> None:
        """There may be work."""
        self._bell.set()

    async def wait(self, timeout_s: float) -> None:
        """Return when rung, or after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._bell.wait(), timeout_s)
        self._bell.clear()

    def cancel(self, job_id: str) -> None:
        """Ask a running job to stop at its next step, wherever it runs."""
        self.interrupt(job_id)

    def interrupt(self, job_id: str) -> None:
        """Ask a job to stop that this process runs; tells no other."""
        with self._lock:
            self._cancelled[job_id] = None
            if len(self._cancelled) > _REMEMBERED:  # those that no worker had begun
                self._cancelled.popitem(last=False)

    def cancelled(self, job_id: str) -> bool:
        """Whether it was asked to; called from the worker's thread."""
        with self._lock:
            return job_id in self._cancelled

    def forget(self, job_id: str) -> None:
        """The job has ended."""
        with self._lock:
            self._cancelled.pop(job_id, None)
