"""Schemathesis, every check, over the schema of a running service with a fake model:
`python -m tests.fuzz --cases 5000`. Exits 1 when any check failed."""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from tests.fake_runtime import FakeRuntime
from tests.fuzz.schemathesis_run import run_schemathesis
from tests.running_service import make_pool, running

PHASES = "examples,coverage,fuzzing,stateful"


async def fuzz(examples: int, seed: int, cases: int) -> int:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="ppd-fuzz-", dir=memory) as folder:
        (Path(folder) / "pool").mkdir()
        pool_dir = make_pool(Path(folder) / "pool")
        async with running(
            FakeRuntime(), Path(folder) / "data", pool_dir, ready=True, max_queued_jobs=100_000
        ) as service:
            done = await run_schemathesis(
                service, Path(folder), examples=examples, seed=seed, phases=PHASES
            )
    sys.stdout.write(done.output)
    sys.stdout.write(f"{done.cases} cases, exit code {done.exit_code}\n")
    return done.exit_code or int(done.cases < cases)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=200, help="of every operation and phase")
    parser.add_argument("--cases", type=int, default=5000, help="fewer in all are a fault")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sys.exit(asyncio.run(fuzz(options.examples, options.seed, options.cases)))


if __name__ == "__main__":
    main()
