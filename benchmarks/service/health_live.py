"""How long `/health/live` takes while the same process makes pictures, and while it rests.

    python -m benchmarks.service.health_live [--rounds 7] [--seconds 10] [--out FILE]

Starts `ppd serve` as it is by default (one process, `mini`) in a folder of its own and asks at a
constant rate, at moments fixed beforehand: an answer that comes late counts from when it was due,
so a stall is not hidden by requests that were never sent. Busy, four jobs of four pictures are
under way all the time. Rest and work alternate.
"""

from __future__ import annotations

import argparse
import http.client
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.rounds import Goal, draw, show, summary
from tests.servers import free_port

READY_S = 180.0
GOAL_MS = 50.0
JOBS_AT_ONCE = 4
PICTURES = 4
STATES = ("at rest", "busy")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--per-s", type=float, default=50.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args(argv)
    rounds: dict[str, list[dict[str, float]]] = {state: [] for state in STATES}
    with serving() as (port, key):
        for turn in range(given.rounds):
            for state in STATES if turn % 2 else STATES[::-1]:
                with at_work(port, key, busy=state == "busy") as made:
                    latencies_ms = ask(port, given.seconds, given.per_s)
                rounds[state].append(percentiles(latencies_ms) | {"pictures": float(len(made))})
    assert all(one["pictures"] for one in rounds["busy"]), "no picture was made meanwhile"
    p99_ms = {state: float(np.median([r["p99_ms"] for r in rounds[state]])) for state in STATES}
    report: dict[str, Any] = {
        "seconds": given.seconds,
        "per_s": given.per_s,
        "rounds": rounds,
        "median_p99_ms": p99_ms,
        "goal_ms": GOAL_MS,
        "met": p99_ms["busy"] <= GOAL_MS,
    }
    show(report, given.out)
    if given.plot is not None:
        busy_ms = {"p99 ms, busy": [one["p99_ms"] for one in rounds["busy"]]}
        goal = Goal("p99 ms, busy", GOAL_MS, at_most=True)
        draw({"health_live": summary(busy_ms, [goal])}, given.plot)


@contextmanager
def serving() -> Iterator[tuple[int, str]]:
    """The port and the key of a service that is ready."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "PPD_DATA_DIR": folder,
            "PPD_RATE_LIMIT_ADDRESS": "1000000/second",
        }
        command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port)]
        service = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_until_ready(port, service)
            yield port, (Path(folder) / "api-key").read_text().strip()
        finally:
            service.terminate()
            service.wait(60)


def wait_until_ready(port: int, service: subprocess.Popen[bytes]) -> None:
    """Raises SystemExit if it ends, or takes too long."""
    until_s = time.monotonic() + READY_S
    while time.monotonic() < until_s:
        if service.poll() is not None:
            raise SystemExit(f"the service ended with {service.returncode}")
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise SystemExit("the service is not ready")


@contextmanager
def at_work(port: int, key: str, *, busy: bool) -> Iterator[list[str]]:
    """Meanwhile pictures are made, if `busy`: gives the pictures' addresses as they come."""
    made: list[str] = []
    enough = threading.Event()
    with ThreadPoolExecutor(JOBS_AT_ONCE) as people:
        working = [
            people.submit(make_pictures, port, key, made, enough)
            for _ in range(JOBS_AT_ONCE if busy else 0)
        ]
        time.sleep(1.0)  # under way, or come to rest
        try:
            yield made
        finally:
            enough.set()
    for person in working:
        person.result()


def make_pictures(port: int, key: str, made: list[str], enough: threading.Event) -> None:
    """One job after the other."""
    base, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=base, headers=headers, timeout=120) as client:
        while not enough.is_set():
            answer = client.post(
                "/generate",
                json={"prompt": "a boat at the sea", "n": PICTURES},
                headers={"Prefer": "wait=60"},
            )
            answer.raise_for_status()
            made += [picture["url"] for picture in answer.json()["result"]["images"]]


def ask(port: int, seconds: float, per_s: float) -> list[float]:
    """Latencies in ms of requests that are due at a constant rate, on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    latencies_ms = []
    began_s = time.perf_counter()
    for turn in range(int(seconds * per_s)):
        due_s = began_s + turn / per_s
        time.sleep(max(0.0, due_s - time.perf_counter()))
        connection.request("GET", "/health/live")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        latencies_ms.append(1e3 * (time.perf_counter() - due_s))
    connection.close()
    return latencies_ms


def percentiles(latencies_ms: Sequence[float]) -> dict[str, float]:
    """Median, p99 and most."""
    p50, p99, most = np.percentile(latencies_ms, [50, 99, 100])
    return {"p50_ms": float(p50), "p99_ms": float(p99), "most_ms": float(most)}


if __name__ == "__main__":
    main()
