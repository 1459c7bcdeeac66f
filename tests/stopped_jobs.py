"""A job of shards that is stopped while it writes one: killed, asked to end, or on a full disk."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

from ppd_model.files.artifact import sha256_of
from training.data import shards
from training.jobs.stopping import ended_cleanly

STATUS = {"killed": -signal.SIGKILL, "asked to end": 128 + signal.SIGTERM, "disk full": 2}
"""How it is stopped, and the status that the process ends with."""


def stop(job: Callable[[], object], how: str, at: int) -> None:
    """Run the job in a process of its own, stopped when its `at`-th file is written and not yet
    in its place."""
    written = 0

    def stopping(path: Path) -> str:
        nonlocal written
        if path.suffix == ".tmp":
            written += 1
            if written == at:
                stop_now(how)
        return sha256_of(path)

    def watched() -> None:
        shards.sha256_of = stopping  # type: ignore[attr-defined]
        job()

    stops(watched, how)


def stops(job: Callable[[], object], how: str) -> None:
    """Run a job that calls `stop_now(how)` in a process of its own."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(job,))
    process.start()
    process.join()
    assert process.exitcode == STATUS[how], f"{how}: ended with {process.exitcode}"


def _run(job: Callable[[], object]) -> None:
    try:
        with ended_cleanly("what was finished is kept"):
            job()
    except OSError as error:
        os._exit(2 if "could not be written" in str(error) or "too large" in str(error) else 3)
    except SystemExit as ended:
        os._exit(int(ended.code or 0))
    os._exit(0)


def stop_now(how: str) -> None:
    """From within a job: kill it, ask it to end, or let no file grow any more."""
    if how == "disk full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    else:
        os.kill(os.getpid(), signal.SIGKILL if how == "killed" else signal.SIGTERM)
