"""A PostgreSQL that stops, hangs, is full or goes away: 503 with Retry-After, and nothing twice."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select, text

from service.core.errors import DatabaseAway
from service.infra.queue.queue_state import QueueMetrics
from service.infra.sql.connection_limits import ConnectionLimits
from service.infra.sql.database import Database
from service.infra.sql.tables import Job
from tests.fake_runtime import FakeRuntime
from tests.running_service import Service, on_postgres, running
from tests.servers import Postgres
from tests.tcp_proxy import Line, line_to

pytestmark = pytest.mark.anyio

BODY = {"prompt": "a fox", "user_id": "ann"}
LIMITS = ConnectionLimits(pool_size=2, pool_timeout_s=0.3, lock_timeout_s=0.3, connect_timeout_s=2)


@asynccontextmanager
async def opened(url: str, limits: ConnectionLimits = LIMITS) -> AsyncIterator[Database]:
    database = Database(url, limits=limits)
    try:
        yield database
    finally:
        await database.close()


async def ping(database: Database) -> None:
    async with database.read() as store:
        assert await store.session.scalar(text("SELECT 1")) == 1


@pytest.fixture
async def line(postgres: Postgres) -> AsyncIterator[Line]:
    async with line_to(postgres.port) as carried:
        yield carried


@pytest.fixture
async def service(
    tmp_path: Path,
    pool_dir: Path,
    postgres: Postgres,
    line: Line,
    migrated_postgres: Callable[[], str],
) -> AsyncIterator[Service]:
    """A service whose way to its database is the line; no worker takes a job."""
    url = migrated_postgres().replace(f":{postgres.port}/", f":{line.port}/")
    runtime = FakeRuntime()
    runtime.load_gate.clear()
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(
            running(runtime, tmp_path / "d", pool_dir, ready=False, **on_postgres(url))
        )


def expect_503(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (503, "database"), answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["content-type"] == "application/problem+json"


async def test_while_the_server_is_stopped_all_is_503_and_afterwards_well_again(
    service: Service, postgres: Postgres
) -> None:
    client = service.client()
    job_id = (await client.post("/generate", json=BODY)).json()["id"]
    postgres.kill()
    try:
        for _ in range(2):
            expect_503(await client.get(f"/jobs/{job_id}"))
            expect_503(await client.post("/generate", json=BODY))
            expect_503(await client.delete("/users/ann"))
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 503
    finally:
        postgres.start()
    assert (await client.get(f"/jobs/{job_id}")).json()["id"] == job_id
    assert (await client.post("/generate", json=BODY)).status_code == 202


async def test_connections_that_were_cut_while_nobody_looked_are_replaced_unnoticed(
    service: Service, line: Line
) -> None:
    client = service.client()
    sent = await asyncio.gather(*(client.post("/generate", json=BODY) for _ in range(4)))
    assert {answer.status_code for answer in sent} == {202}
    line.cut()
    await asyncio.sleep(0.2)
    for _ in range(4):
        assert (await client.get(f"/jobs/{sent[0].json()['id']}")).status_code == 200


async def test_a_request_whose_commit_was_not_answered_is_503_and_repeated_makes_no_second_job(
    service: Service, line: Line
) -> None:
    client = service.client(headers={"Idempotency-Key": "k-1"})
    record = b"INSERT INTO idempotency_keys"
    line.cut_after = lambda sent: line.cuts == 0 and b"COMMIT" in sent.partition(record)[2]
    expect_503(await client.post("/generate", json=BODY))
    assert line.cuts == 1
    again = await client.post("/generate", json=BODY)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
    async with service.database.read() as store:
        assert await store.session.scalar(select(func.count()).select_from(Job)) == 1


async def test_a_group_whose_commit_was_not_answered_is_503_for_all_of_it_and_not_sent_again(
    service: Service, line: Line
) -> None:
    client = service.client()
    assert (await client.post("/generate", json=BODY)).status_code == 202
    line.cut_after = lambda sent: (
        line.cuts == 0 and b"COMMIT" in sent.partition(b"INSERT INTO jobs")[2]
    )
    bodies = [{**BODY, "seed": seed} for seed in range(12)]
    answers = await asyncio.gather(*(client.post("/generate", json=body) for body in bodies))
    assert line.cuts == 1
    cut = [answer for answer in answers if answer.status_code != 202]
    assert cut
    for answer in cut:
        expect_503(answer)
    async with service.database.read() as store:
        requests = list(await store.session.scalars(select(Job.request)))
        accepted = {answer.json()["id"] for answer in answers if answer.status_code == 202}
        assert accepted <= set(await store.session.scalars(select(Job.id)))
    seeds = [request["seed"] for request in requests if request["seed"] < len(bodies)]
    assert len(seeds) == len(set(seeds)), "nobody has two jobs"
    assert (await client.post("/generate", json=BODY)).status_code == 202


async def test_a_server_that_says_nothing_is_given_up(
    line: Line,
    postgres: Postgres,
    migrated_postgres: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.infra.sql.postgres._CLIENT_MARGIN_S", 0.3)
    url = migrated_postgres().replace(f":{postgres.port}/", f":{line.port}/")
    async with opened(url, replace(LIMITS, statement_timeout_s=2.0)) as database:
        await ping(database)
        line.swallows = True
        async with asyncio.timeout(30):
            with pytest.raises(DatabaseAway):  # a statement without an answer
                await ping(database)
            with pytest.raises(DatabaseAway):  # a connection that is never made
                await ping(database)
        line.swallows = False
        await ping(database)


async def test_looks_at_a_silent_server_end_after_two_seconds(
    line: Line, postgres: Postgres, migrated_postgres: Callable[[], str]
) -> None:
    url = migrated_postgres().replace(f":{postgres.port}/", f":{line.port}/")
    async with opened(url) as database:
        await ping(database)
        line.swallows = True
        for _ in range(2):  # over a connection that stands, and over one that is to be made
            metrics, began = QueueMetrics(database), time.monotonic()
            registry = await metrics.registry()
            assert time.monotonic() - began < 4
            assert registry.get_sample_value("ppd_database_up") == 0
        line.swallows = False


async def test_who_finds_no_free_connection_is_told_so_quickly(
    migrated_postgres: Callable[[], str],
) -> None:
    async with opened(migrated_postgres()) as database, AsyncExitStack() as stack:
        for _ in range(LIMITS.pool_size):
            store = await stack.enter_async_context(database.read())
            await store.session.execute(text("SELECT 1"))
        began = time.monotonic()
        with pytest.raises(DatabaseAway):
            await ping(database)
        assert time.monotonic() - began < 20


async def test_who_waits_long_for_a_row_or_an_answer_is_told_so(
    migrated_postgres: Callable[[], str],
) -> None:
    limits = replace(LIMITS, statement_timeout_s=0.5)
    async with opened(migrated_postgres(), limits) as database:
        async with database.write() as store:
            await store.users.get_or_create("t", "ann", alone=True)
        async with database.write() as store:
            await store.users.alone("t", "ann")
            with pytest.raises(DatabaseAway):
                async with database.write() as other:
                    await other.users.alone("t", "ann")
        with pytest.raises(DatabaseAway):
            async with database.read() as store:
                await store.session.execute(text("SELECT pg_sleep(30)"))


async def test_a_server_that_takes_no_writes_is_away(migrated_postgres: Callable[[], str]) -> None:
    read_only = text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
    async with opened(migrated_postgres(), replace(LIMITS, pool_size=1)) as database:
        async with database.write() as store:
            await store.session.execute(read_only)
        with pytest.raises(DatabaseAway):
            async with database.write() as store:
                await store.users.get_or_create("t", "ann")


async def test_an_error_of_our_own_is_not_taken_for_an_absence(
    migrated_postgres: Callable[[], str],
) -> None:
    async with opened(migrated_postgres()) as database:
        with pytest.raises(ValueError, match="ours"):
            async with database.write():
                raise ValueError("ours")


async def test_text_that_postgresql_cannot_hold_is_answered_and_never_sent_there(
    service: Service,
) -> None:
    client = service.client()
    for strange in ("%00", "a%00b", "%ff", "%ed%a0%80"):
        for path in (f"/jobs/{strange}", f"/jobs/{strange}/events", f"/images/{strange}"):
            assert (await client.get(path)).status_code == 404, path
        assert (await client.delete(f"/jobs/{strange}")).status_code == 404
    for path in ("/users/%00/preferences", "/users/ann/images?cursor=%00"):
        assert (await client.get(path)).status_code in (404, 422), path
    for prompt in ('"a\\u0000b"', '"\\ud800"', '"a", "seed": 18446744073709551616'):
        body = f'{{"prompt": {prompt}}}'.encode()
        answer = await client.post(
            "/generate", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 422, prompt
    cursor = "WyJcdTAwMDAiLCAiXHUwMDAwIl0"  # two texts of one NUL
    answer = await client.get("/users/ann/images", params={"cursor": cursor})
    assert answer.status_code == 422
