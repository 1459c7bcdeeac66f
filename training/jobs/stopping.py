"""A job that is asked to end, by SIGTERM or Ctrl-C, ends where it can go on from."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Whether the process was asked to end: the signal's number, or None."""

    signal: int | None = None


@contextmanager
def watched() -> Iterator[Stop]:
    """Within it a first signal is only noted, for a job that looks; a second one ends at once.

    Signals reach the main thread alone: in another one nothing is watched.
    """
    stop = Stop()

    def note(number: int, frame: FrameType | None) -> None:
        if stop.signal is not None:
            end(number, "at once, as asked a second time")
        stop.signal = number

    with _handling(note):
        yield stop


@contextmanager
def ended_cleanly(left: str) -> Iterator[None]:
    """Within it a signal ends the process with status 128 + its number, and `left` on screen.

    What a job has begun to write is taken away by the job's own clean-up.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        end(number, left)

    with _handling(leave):
        yield


def end(number: int, left: str) -> NoReturn:
    """Say why, and leave with the status that a shell gives for that signal."""
    print(f"stopped by {signal.Signals(number).name}: {left}", flush=True)
    raise SystemExit(128 + number)


@contextmanager
def _handling(handler: Any) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
