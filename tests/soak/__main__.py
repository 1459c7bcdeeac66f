"""People, hostile clients and faults against a running service: `python -m tests.soak`.

The service is the embedded default as a process of its own, or with `--production` an API replica
and two workers over PostgreSQL and Redis. The model is a fake, whose pictures show whose they are,
so that every picture is compared with what it must be. Every ten seconds a line tells of the
memory and the descriptors of each process; at the end stands what was lost (accepted, and came to
no end), doubled, crossed (another's picture), and answered 5xx, 503 with Retry-After excepted.
Exits 1 when anything was.
"""

import argparse
import asyncio
import itertools
import json
import random
import statistics
import sys
import tempfile
from pathlib import Path

import httpx

from tests.known_people import ANSWERS, Person
from tests.soak import hostile
from tests.soak.book import Book
from tests.soak.people import Client, browse, upload
from tests.soak.served import Program, Served, embedded_service, production

_SAMPLE_EVERY_S = 10.0
_WARM_S = 120.0
_GROWTH = 0.05
_SPARE_DESCRIPTORS = 30
_REST_S = 25.0
"""After the last client has gone; what is still open then, nobody closes."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--hours", type=float, default=0.0)
    parser.add_argument(
        "--people", type=int, default=8, help="clients with a taste, of two tenants"
    )
    parser.add_argument("--fault-every-s", type=float, default=20.0, help="0: no faults")
    parser.add_argument("--step-s", type=float, default=0.02, help="time of one denoising step")
    parser.add_argument("--production", action="store_true", help="API and workers")
    parser.add_argument("--out", type=Path, help="a file for the report, as JSON")
    given = parser.parse_args()
    book = Book()
    with tempfile.TemporaryDirectory(prefix="ppd-soak-", ignore_cleanup_errors=True) as name:
        asyncio.run(soak(given, Path(name), book))
    report = json.dumps(book.report(), indent=2)
    print(report)
    if given.out is not None:
        given.out.write_text(report + "\n")
    sys.exit(1 if book.wrong else 0)


async def soak(given: argparse.Namespace, folder: Path, book: Book) -> None:
    """The whole run; what went wrong is in the book."""
    opened = production if given.production else embedded_service
    seconds = given.hours * 3600 or given.minutes * 60
    async with opened(folder, book, given.step_s) as served:
        book.begin()
        watch = Watch(book, served)
        before = watch.descriptors()
        watching = asyncio.create_task(watch.run())
        clients = await _clients(given.people, served, book)
        stop = asyncio.Event()
        load = [
            *(asyncio.create_task(client.live(stop)) for client in clients),
            *(asyncio.create_task(one) for one in _others(clients[0].http, served, book, stop)),
        ]
        await _with_faults(served, book, seconds, given.fault_every_s, load)
        stop.set()
        for outcome in await asyncio.gather(*load, return_exceptions=True):
            if isinstance(outcome, BaseException):
                book.find("other", f"a client ended with {type(outcome).__name__}: {outcome}")
        await served.ready()
        await asyncio.gather(*(client.all_accounted_for() for client in clients))
        await asyncio.gather(*(client.http.aclose() for client in clients))
        await asyncio.sleep(_REST_S)
        watching.cancel()
        watch.judge(before)
        for program in served.programs:
            if program.ended():
                book.find("other", f"{program.name} has ended by itself")
        _tracebacks(served, book)


async def _clients(count: int, served: Served, book: Book) -> list[Client]:
    """People of two tenants, whose names are the same in both; no two of all answered alike."""
    clients: list[Client] = []
    keys = {"default": served.key, "shop": await _key_of("shop", served)}
    for i, tenant in zip(range(count), itertools.cycle(keys)):
        person = Person(tenant, f"person-{i // 2}", (ANSWERS[i % len(ANSWERS)],))
        http = httpx.AsyncClient(
            base_url=served.url,
            timeout=60,
            trust_env=False,
            headers={"Authorization": f"Bearer {keys[tenant]}"},
        )
        clients.append(Client(person, http, keys[tenant], book, random.Random(i)))
    return clients


async def _key_of(tenant: str, served: Served) -> str:
    headers = {"Authorization": f"Bearer {served.key}"}
    async with httpx.AsyncClient(base_url=served.url, headers=headers, trust_env=False) as admin:
        made = await admin.post("/admin/keys", json={"name": "soak", "tenant": tenant})
        made.raise_for_status()
        return str(made.json()["key"])


def _others(http: httpx.AsyncClient, served: Served, book: Book, stop: asyncio.Event):  # type: ignore[no-untyped-def]
    yield from (upload(http, book, stop, seed) for seed in range(2))
    yield from (browse(served.url, book, stop) for _ in range(2))
    yield hostile.bad_bodies(http, book, stop)
    yield hostile.huge_pixels(http, book, stop)
    yield hostile.wire(served.address, served.key, book, stop)
    yield hostile.slow(served.address, served.key, book, stop)


async def _with_faults(
    served: Served, book: Book, seconds: float, every_s: float, load: "list[asyncio.Task[None]]"
) -> None:
    """One fault after the other, each kind in turn, until the time is over."""
    faults = itertools.cycle(served.faults)
    while (left_s := seconds - book.now_s) > 0:
        await asyncio.sleep(min(every_s or left_s, left_s))
        if every_s and seconds - book.now_s > every_s:
            try:
                await next(faults)()
            except Exception as error:
                book.find("other", f"not ready after a fault: {type(error).__name__}: {error}")
        for task in load:
            if task.done() and task.exception() is not None:
                return


class Watch:
    """Memory and descriptors of each process over time."""

    def __init__(self, book: Book, served: Served) -> None:
        self._book = book
        self._served = served
        self.seen: dict[tuple[str, int], list[tuple[float, float]]] = {}

    async def run(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(_SAMPLE_EVERY_S)

    def _look(self) -> None:
        told = []
        for program in self._served.programs:
            try:
                memory, open_ = _memory_mib(program), _descriptors(program)
            except OSError:  # it was killed in this moment
                continue
            seen = self.seen.setdefault((program.name, program.pid), [])
            seen.append((self._book.now_s, memory))
            told.append(f"{program.name} {memory:.0f} MiB, {open_} descriptors")
        done = {name: self._book.done[name] for name in ("pictures", "streams", "refused", "cut")}
        print(f"{self._book.now_s:7.1f} s  {'; '.join(told)}; {done}", flush=True)

    def descriptors(self) -> dict[str, int]:
        return {program.name: _descriptors(program) for program in self._served.programs}

    def judge(self, before: dict[str, int]) -> None:
        """Memory of what lived for long, after its warm-up; descriptors now that nobody asks."""
        for (name, pid), seen in self.seen.items():
            warm = [mib for at, mib in seen if at > seen[0][0] + _WARM_S]
            if len(warm) < 12:
                continue
            third = len(warm) // 3
            first, last = statistics.median(warm[:third]), statistics.median(warm[-third:])
            self._book.done[f"MiB of {name}, {pid}: {first:.0f} to {last:.0f}"] += 1
            if last > first * (1 + _GROWTH):
                self._book.find("memory", f"{name}: {first:.0f} MiB became {last:.0f} MiB")
        for name, now in self.descriptors().items():
            if now > before[name] + _SPARE_DESCRIPTORS:
                self._book.find("descriptors", f"{name}: {before[name]} became {now}")


def _memory_mib(program: Program) -> float:
    status = Path(f"/proc/{program.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def _descriptors(program: Program) -> int:
    return sum(1 for _ in Path(f"/proc/{program.pid}/fd").iterdir())


def _tracebacks(served: Served, book: Book) -> None:
    """What the processes wrote that nobody expects, the first lines of it."""
    for log in sorted({program.log for program in served.programs}):
        text = log.read_text(errors="replace")
        book.done[f"lines of {log.name}"] = text.count("\n")
        for sign in ("Exception in ASGI", "Task was destroyed", "never retrieved"):
            if sign in text:
                place = text.index(sign)
                book.find("other", f"{log.name}: {text[place : place + 600]}")


if __name__ == "__main__":
    main()
