"""Tickets commit and vanish with the rows of their jobs."""

import asyncio

import pytest
from sqlalchemy import func, select, text, update

from service.core.messages import KINDS
from service.infra.queue.tickets import ProcrastinateDelivery, Tickets
from service.infra.sql import migrate
from service.infra.sql.database import Database
from service.infra.sql.tables import Job

pytestmark = pytest.mark.anyio


@pytest.fixture
async def database(postgres_url: str):  # type: ignore[no-untyped-def]
    url = postgres_url.replace("postgresql:", "postgresql+psycopg:")
    await asyncio.to_thread(migrate.upgrade, url)
    database = Database(url, ProcrastinateDelivery())
    yield database
    await database.close()


def job(kind: str = "generate") -> Job:
    return Job(kind=kind, priority=10, tenant="t", request={})


async def counts(database: Database) -> tuple[int, int]:
    async with database.read() as store:
        rows = await store.session.scalar(select(func.count()).select_from(Job))
        tickets = await store.session.scalar(text("SELECT count(*) FROM procrastinate_jobs"))
        return rows or 0, tickets


async def test_a_rollback_leaves_neither_row_nor_ticket(database: Database) -> None:
    async def queue_and_fail() -> None:
        async with database.write() as store:
            await store.jobs.add(job())
            assert await store.session.scalar(text("SELECT count(*) FROM procrastinate_jobs")) == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await queue_and_fail()
    assert await counts(database) == (0, 0)
    async with database.write() as store:
        await store.jobs.add(job())
        assert await counts(database) == (0, 0), "another connection sees both or none"
    assert await counts(database) == (1, 1)


async def test_a_ticket_stands_in_the_queue_of_its_kind(database: Database) -> None:
    async with database.write() as store:
        await store.jobs.add(job("encode"))
        await store.jobs.add(job("generate"))
    async with database.read() as store:
        queues = await store.session.scalars(
            text("SELECT queue_name FROM procrastinate_jobs ORDER BY id")
        )
        assert queues.all() == ["encode", "generate"]


async def test_what_is_missing_is_put_out_and_no_more(
    database: Database, postgres_url: str
) -> None:
    async with database.write() as store:
        for _ in range(3):
            await store.jobs.add(job())
        await store.session.execute(text("DELETE FROM procrastinate_jobs"))
    tickets = Tickets(postgres_url, database, KINDS)

    async def nothing(kind: str) -> None:
        raise AssertionError(kind)

    async with tickets.opened(nothing):
        await tickets.top_up()
        assert await counts(database) == (3, 3)
        await tickets.top_up()
    assert await counts(database) == (3, 3)


async def test_a_ticket_goes_back_only_where_jobs_of_its_kind_wait(database: Database) -> None:
    async with database.write() as store:
        await store.jobs.add(job("encode"))
    async with database.write() as store:
        await store.jobs.put_ticket_back("generate")
    assert await counts(database) == (1, 1)
    async with database.write() as store:
        await store.jobs.put_ticket_back("encode")
    assert await counts(database) == (1, 2)


async def test_what_has_lost_many_workers_can_be_left_out(database: Database) -> None:
    unlucky = job()
    unlucky.losses = 2
    async with database.write() as store:
        await store.jobs.add(unlucky)
    async with database.write() as store:
        assert await store.claims.claim(KINDS, "w", 60, losses_below=2) is None
        claimed = await store.claims.claim(KINDS, "w", 60)
    assert claimed is not None
    assert (claimed.id, claimed.attempt, claimed.losses) == (unlucky.id, 1, 2)


async def test_a_renewal_tells_which_jobs_are_still_ours(database: Database) -> None:
    async with database.write() as store:
        for _ in range(3):
            await store.jobs.add(job())
        held = [await store.claims.claim(KINDS, "w", 60) for _ in range(3)]
    mine, canceled, taken = ((one.id, one.attempt) for one in held if one is not None)
    async with database.write() as store:
        gone = await store.jobs.get(canceled[0])
        assert gone is not None
        await store.jobs.cancel(gone)
        await store.session.execute(update(Job).where(Job.id == taken[0]).values(attempt=2))
    async with database.write() as store:
        assert await store.claims.renew([mine, canceled, taken], 60) == {mine}
