"""Requests per second of the two hot routes on PostgreSQL, against bare routes of the framework.

    python -m benchmarks.service.http_throughput --out runs/http_throughput

(a) `POST /generate` (authenticate, validate, store, enqueue, commit) against a bare POST with
pydantic in and out; (b) `GET /jobs/{id}` against a bare GET of the same JSON. All four run in turn,
round after round, in one run. Each server has one core and the client another; PostgreSQL and
Redis, private ones, share the client's. The service is an API replica as `ppd serve` starts it in
production. Jobs are taken off the queue as a worker would, or a queue of thousands would be
measured. Prints medians, spread and ratio; writes JSON, and a plot where matplotlib is installed.
Where other work takes the cores, requests for each second of the server's CPU say more than
requests per second, in which PostgreSQL waits for a core too: both are told. Needs the dev and
production extras.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import uvicorn
from fastapi import FastAPI

from service.api.schemas import GenerateIn, JobOut
from service.cli.server import run_server
from service.infra.secrets import key_sha256, new_key
from service.infra.sql import migrate
from service.settings import Settings
from service.wiring import api, open_database, start_logs
from tests.running_service import make_pool
from tests.servers import free_port, postgres_server, redis_server

BODY = json.dumps(
    {"prompt": "a fox in the snow", "user_id": "ann", "steps": 20, "fresh": True}
).encode()
TARGETS = {"POST /generate": 0.4, "GET /jobs/{id}": 0.5}
DRAIN_EVERY_S = 0.02


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each route in each round")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("runs/http_throughput"))
    given = parser.parse_args(argv)
    cores = sorted(os.sched_getaffinity(0))
    server_core, client_core = cores[-1], cores[0]
    os.sched_setaffinity(0, {client_core})
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, postgres_server() as postgres, redis_server() as kv:
        folder = Path(name)
        (folder / "pool").mkdir()
        settings = Settings(
            data_dir=folder / "data",
            pool_dir=make_pool(folder / "pool"),
            database_url=postgres.database(),
            redis_url=kv.url,
            rate_limit_key="1000000000/minute",
            log_level="WARNING",  # as the bare server, which writes no line per request
            session_secret=secrets.token_hex(16),
            max_queued_jobs=10**6,
            max_queued_jobs_per_caller=10**6,
        )
        key = asyncio.run(_prepare(settings))
        ours, bare = free_port(), free_port()
        with (
            _process(_serve_ours, settings, ours, server_core) as our_pid,
            _process(_serve_bare, bare, server_core) as bare_pid,
            _process(_drain, settings.database_url, client_core),
        ):
            rates = asyncio.run(_measure(given, (ours, our_pid), (bare, bare_pid), key))
    report = _report(rates, given)
    (given.out / "http_throughput.json").write_text(json.dumps(report, indent=2) + "\n")
    _plot(report, given.out / "http_throughput.png")


class _process:  # noqa: N801 - reads as a verb
    """A process until the end of the block."""

    def __init__(self, target: Any, *args: Any) -> None:
        self._process = multiprocessing.get_context("spawn").Process(
            target=target, args=args, daemon=True
        )

    def __enter__(self) -> int:
        self._process.start()
        assert self._process.pid is not None
        return self._process.pid

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join(10)


async def _prepare(settings: Settings) -> str:
    """As an operator would: `ppd migrate`, then `ppd keys create`; gives the key."""
    await asyncio.to_thread(migrate.upgrade, settings.database)
    database, key = open_database(settings), new_key()
    async with database.write() as store:
        await store.keys.add("default", "benchmark", key_sha256(key), "client")
    await database.close()
    return key


def _serve_ours(settings: Settings, port: int, core: int) -> None:
    """An API replica; no worker runs."""
    os.sched_setaffinity(0, {core})
    start_logs(settings)
    run_server(settings.model_copy(update={"port": port}), api(settings))


def _serve_bare(port: int, core: int) -> None:
    """What the framework itself costs: the same body in, the same JSON out."""
    os.sched_setaffinity(0, {core})
    app = FastAPI(telemetry={"tracing": False, "metrics": False})
    job = _example_job()

    @app.post("/bare", status_code=202, response_model_exclude_none=True)
    async def post(body: GenerateIn) -> JobOut:
        return JobOut(**{**job, "id": secrets.token_hex(16)})

    @app.get("/bare")
    async def get() -> dict[str, Any]:
        return job

    uvicorn.run(app, port=port, access_log=False, log_level="error", server_header=False)


def _example_job() -> dict[str, Any]:
    job_id = "0" * 32
    links = dict.fromkeys(("self", "events", "cancel"), f"/jobs/{job_id}")
    at = "2026-01-01T00:00:00Z"
    about = {"id": job_id, "kind": "generate", "status": "queued", "seq": 1}
    return {**about, "created_at": at, "links": links}


def _drain(url: str, core: int) -> None:
    """Take jobs off the queue, as workers would."""
    os.sched_setaffinity(0, {core})
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        while True:
            connection.execute("UPDATE jobs SET status = 'succeeded' WHERE status = 'queued'")
            connection.execute("DELETE FROM procrastinate_jobs")
            time.sleep(DRAIN_EVERY_S)


Server = tuple[int, int]
"""Its port and its process's id."""
Rates = dict[str, list[tuple[float, float]]]
"""Requests per second, and per second of the server's CPU, of each route, round by round."""


async def _measure(given: argparse.Namespace, ours: Server, bare: Server, key: str) -> Rates:
    bearer = f"Authorization: Bearer {key}\r\n"
    await asyncio.gather(_answers(ours[0]), _answers(bare[0]))
    accepted = await _one(ours[0], _request("POST", "/generate", bearer, BODY))
    job_id = json.loads(accepted.partition(b"\r\n\r\n")[2])["id"]
    routes = {
        "POST bare": (bare, _request("POST", "/bare", "", BODY), b"202"),
        "POST /generate": (ours, _request("POST", "/generate", bearer, BODY), b"202"),
        "GET bare": (bare, _request("GET", "/bare", "", b""), b"200"),
        "GET /jobs/{id}": (ours, _request("GET", f"/jobs/{job_id}", bearer, b""), b"200"),
    }
    rates: Rates = {name: [] for name in routes}
    for server, request, status in routes.values():  # warm
        await _rate(server, request, status, 1.0, given.connections)
    for round_ in range(given.rounds):
        for name, (server, request, status) in routes.items():
            rate = await _rate(server, request, status, given.seconds, given.connections)
            rates[name].append(rate)
        print(f"round {round_ + 1}:", {name: round(all_[-1][0]) for name, all_ in rates.items()})
    return rates


def _request(method: str, path: str, headers: str, body: bytes) -> bytes:
    kind = "Content-Type: application/json\r\n" if body else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}{kind}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _answers(port: int) -> None:
    """Wait until somebody listens."""
    async with asyncio.timeout(120):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
                continue
            writer.close()
            return


async def _one(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await _answer(reader)
    writer.close()
    return answer


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head + await reader.readexactly(int(line.partition(b":")[2]))
    raise ValueError(f"an answer without a length: {head!r}")


async def _rate(
    server: Server, request: bytes, status: bytes, seconds: float, connections: int
) -> tuple[float, float]:
    """Over kept connections, each with one request at a time."""
    port, pid = server
    done, worked_s = 0, _cpu_s(pid)
    began = time.perf_counter()
    end = began + seconds

    async def client() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < end:
            writer.write(request)
            answer = await _answer(reader)
            if answer[9:12] != status:
                raise ValueError(f"expected {status!r}, got {answer!r}")
            done += 1
        writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    took_s = time.perf_counter() - began
    return done / took_s, done / (_cpu_s(pid) - worked_s)


def _cpu_s(pid: int) -> float:
    """What a process has worked, in itself and in the system."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, after_name[11:13])) / os.sysconf("SC_CLK_TCK")


def _report(rates: Rates, given: argparse.Namespace) -> dict[str, Any]:
    pairs = {"POST /generate": "POST bare", "GET /jobs/{id}": "GET bare"}
    report: dict[str, Any] = {
        "seconds": given.seconds,
        "connections": given.connections,
        "cores": os.cpu_count(),
        "load_1min": os.getloadavg()[0],
        "requests_per_s": {name: [rate for rate, _ in all_] for name, all_ in rates.items()},
        "requests_per_cpu_s": {name: [rate for _, rate in all_] for name, all_ in rates.items()},
        "ratios": {},
    }
    for name, bare in pairs.items():
        report["ratios"][name] = {"reach": TARGETS[name]}
        for unit in ("s", "cpu_s"):
            ours, theirs = (report[f"requests_per_{unit}"][one] for one in (name, bare))
            ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
            middle = statistics.median(ratios)
            report["ratios"][name][f"per_{unit}"] = {
                "median": middle,
                "lowest": min(ratios),
                "highest": max(ratios),
            }
            print(
                f"{name}: {statistics.median(ours):.0f} per {unit} against "
                f"{statistics.median(theirs):.0f} bare; ratio {middle:.3f} "
                f"({min(ratios):.3f} to {max(ratios):.3f}); reach {TARGETS[name]}"
            )
    return report


def _plot(report: dict[str, Any], path: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    names = list(report["requests_per_s"])
    axes.boxplot([report["requests_per_s"][name] for name in names], tick_labels=names)
    axes.set_ylabel("requests per second")
    axes.set_ylim(bottom=0)
    ratios = ", ".join(
        f"{name} {one['per_s']['median']:.2f}x" for name, one in report["ratios"].items()
    )
    axes.set_title(f"One core for the server: {ratios} of a bare route", fontsize=10)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
