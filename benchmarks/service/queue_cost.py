"""What one job costs PostgreSQL, Redis and the processes beside the model.

    python -m benchmarks.service.queue_cost [--jobs 400] [--workers 2] [--rounds 7] [--out FILE]

An API replica, and workers whose model takes no time; every job goes its whole way, from
`POST /generate` over the ticket, the claim, the events and the stored picture to `succeeded`. What
is told is CPU time by process, which is what a larger machine has more of; `pictures/s` is this
machine's, where everything including the client shares the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from sqlalchemy import text

from benchmarks.rounds import report_of, show, spread
from tests.production import Deployment, deployment
from tests.running_service import make_pool
from tests.servers import Postgres, Redis, postgres_server, redis_server

ASKERS = 16
PEOPLE = 32


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    given = vars(parser.parse_args(argv))
    out = given.pop("out")
    with TemporaryDirectory() as name, postgres_server() as postgres, redis_server() as kv:
        values = asyncio.run(measure(Path(name), postgres, kv, **given))
    rows = {"queue": {"values": {what: spread(v) for what, v in values.items()}, "rounds": values}}
    show(report_of(given, rows), out)


async def measure(
    folder: Path, postgres: Postgres, kv: Redis, *, jobs: int, workers: int, steps: int, rounds: int
) -> dict[str, list[float]]:
    """CPU milliseconds of each kind of process for a job, round by round, after one to warm up."""
    wide = {"PPD_MAX_QUEUED_JOBS_PER_CALLER": str(jobs), "PPD_MAX_QUEUED_JOBS": str(2 * jobs)}
    wide |= {"PPD_JOB_LEASE_S": "60", "PPD_LOG_LEVEL": "WARNING"}
    (folder / "pool").mkdir()
    pool = make_pool(folder / "pool")
    values: dict[str, list[float]] = {}
    async with deployment(postgres.database(), kv.url, folder / "data", pool, **wide) as made:
        for _ in range(workers):
            made.worker(concurrency=4, step_s=0.0)
        await made.all_ready()
        for turn in range(rounds + 1):
            before, started_s = cpu_s(made, postgres, kv), time.perf_counter()
            await run(made, jobs, steps)
            lasted_s = time.perf_counter() - started_s
            after = cpu_s(made, postgres, kv)
            told = {f"CPU ms a job, {k}": 1e3 * (after[k] - before[k]) / jobs for k in after}
            for what, value in {"pictures/s": jobs / lasted_s, **told}.items():
                if turn:
                    values.setdefault(what, []).append(value)
    return values


async def run(made: Deployment, jobs: int, steps: int) -> None:
    """Ask for all pictures, then wait until the last is there."""
    left = iter(range(jobs))

    async def ask() -> list[str]:
        return [await made.ask(steps=steps, user_id=f"person-{i % PEOPLE}") for i in left]

    asked = await asyncio.gather(*(ask() for _ in range(ASKERS)))

    async def look() -> bool:
        async with made.database.read() as store:
            unfinished = "SELECT count(*) FROM jobs WHERE status IN ('queued', 'running')"
            return not (await store.session.execute(text(unfinished))).scalar_one()

    await made.until(look)
    await made.all_are([job_id for ids in asked for job_id in ids[-4:]], "succeeded")


def cpu_s(made: Deployment, postgres: Postgres, kv: Redis) -> dict[str, float]:
    """CPU seconds so far, by kind of process."""
    assert postgres._process is not None
    assert kv._process is not None
    pids: dict[str, list[int]] = {
        "PostgreSQL": [postgres._process.pid],
        "Redis": [kv._process.pid],
        "workers": [process.pid for process in made.workers],
        "API and client": [],
    }
    told = {kind: sum(_family_s(psutil.Process(pid)) for pid in of) for kind, of in pids.items()}
    return told | {"API and client": time.process_time()}


def _family_s(parent: psutil.Process) -> float:
    """Of a process and its children, those that ended too."""
    own = parent.cpu_times()
    seconds = own.user + own.system + own.children_user + own.children_system
    for child in parent.children(recursive=True):
        times: Any = child.cpu_times()
        seconds += times.user + times.system
    return float(seconds)


if __name__ == "__main__":
    main()
