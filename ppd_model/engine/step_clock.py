"""How long a step took, without waiting for it where the device works by itself.

On the CPU a step is over when its call is. On a device with a stream, events are recorded around
the step and read a step later, when they have long passed; and the host never runs more than
`STEPS_AHEAD` ahead, so that who arrives joins soon. The latter half has not been run yet.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import torch

STEPS_AHEAD = 2


class StepClock:
    """Calls `observe(seconds)` for each step, at its end or a little later."""

    def __init__(self, *, asynchronous: bool) -> None:
        self._asynchronous = asynchronous
        self._started_s = 0.0
        self._start: torch.cuda.Event | None = None
        self._ahead: deque[tuple[torch.cuda.Event, torch.cuda.Event, Callable[[float], None]]] = (
            deque()
        )

    def begin(self) -> None:
        if self._asynchronous:
            self._start = torch.cuda.Event(enable_timing=True)
            self._start.record()
        else:
            self._started_s = time.perf_counter()

    def end(self, observe: Callable[[float], None]) -> None:
        """Just after a step was made, or put on the stream."""
        if not self._asynchronous:
            observe(time.perf_counter() - self._started_s)
            return
        assert self._start is not None
        end = torch.cuda.Event(enable_timing=True)
        end.record()
        self._ahead.append((self._start, end, observe))
        while len(self._ahead) > STEPS_AHEAD:
            start, end, observe_earlier = self._ahead.popleft()
            end.synchronize()
            observe_earlier(start.elapsed_time(end) / 1000)

    def settle(self) -> None:
        """Wait for all that is on the stream: at the start and before resting, never in a step."""
        while self._ahead:
            start, end, observe = self._ahead.popleft()
            end.synchronize()
            observe(start.elapsed_time(end) / 1000)
