"""A job of several processes, each of which waits for the others where accelerate's would."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable

from training.precompute.processes import Worker


def run_forked(job: Callable[[Worker], object], count: int = 2) -> None:
    """Run the job in that many processes. Raises AssertionError unless all of them end well."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(count, timeout=120)

    def run(index: int) -> None:
        job(Worker(index, count, wait=lambda: [barrier.wait()].clear()))
        os._exit(0)

    processes = [context.Process(target=run, args=(index,)) for index in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * count
