"""How long a reading takes, alone and beside a process that keeps a core busy.

    python -m benchmarks.service.reading_beside --rounds 5

Both ways in which OpenMP's threads can wait take turns, each in a process of its own, idle and
busy in every round; the table has medians and, in brackets, the least and the greatest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

READINGS = 6
POLICIES = ("ACTIVE", "PASSIVE")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--once", action="store_true", help="be one of the processes measured")
    options = parser.parse_args(argv)
    if options.once:
        print(json.dumps(readings(options.threads)))
        return
    seconds: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for policy in POLICIES:
            for beside in (0, 1):
                with busy(beside):
                    took = measured(policy, options.threads)
                seconds.setdefault(f"{policy}, {beside} busy", []).append(statistics.median(took))
    for name, medians in seconds.items():
        print(
            f"{name}: {statistics.median(medians):.2f} s ({min(medians):.2f}, {max(medians):.2f})"
        )
    for policy in POLICIES:
        both = zip(seconds[f"{policy}, 1 busy"], seconds[f"{policy}, 0 busy"], strict=True)
        print(f"{policy}: {statistics.median(a / b for a, b in both):.2f} times as long beside it")
    if options.out is not None:
        options.out.write_text(json.dumps(seconds, indent=1) + "\n")


def measured(policy: str, threads: int) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.service.reading_beside", "--once"]
    environment = os.environ | {"OMP_WAIT_POLICY": policy}
    done = subprocess.run(
        [*command, "--threads", str(threads)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    took: list[float] = json.loads(done.stdout.splitlines()[-1])
    return took


def readings(threads: int) -> list[float]:
    """Seconds of each reading, the first left out."""
    import torch

    from benchmarks.same_picture_digests import four_pairs
    from ppd_model import UserEncoder

    torch.set_num_threads(threads)
    encoder, pairs = UserEncoder.load("mini"), four_pairs()
    took = []
    for _ in range(READINGS + 1):
        begun_s = time.perf_counter()
        encoder.encode(pairs)
        took.append(time.perf_counter() - begun_s)
    return took[1:]


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that do nothing but keep a core busy."""
    running = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)
    ]
    try:
        time.sleep(0.2)
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
