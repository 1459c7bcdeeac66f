"""Job delivery by Procrastinate: tickets in PostgreSQL, in one queue per kind of job."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager

from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Status
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import Integer, String, bindparam, text
from sqlalchemy.ext.asyncio import AsyncSession

from service.infra.sql.database import Database
from service.infra.sql.pipelines import carry_out

TASK = "ppd.take_turn"
_KEEP_FINISHED_H = 1
_POOL_WAIT_S = 5.0
_LOOK_EVERY_S = 5.0
_PUT_OUT = text(
    f"""
    SELECT procrastinate_defer_jobs_v1(array_fill(
        CAST(
            ROW(:kind, '{TASK}', 0, NULL, NULL, jsonb_build_object('kind', :kind), NULL)
            AS procrastinate_job_to_defer_v1
        ),
        ARRAY[:count]
    ))
    """
).bindparams(bindparam("kind", type_=String), bindparam("count", type_=Integer))
"""Procrastinate's own function, given one ticket many times: its Python writes each of them out,
which takes as long as all else about a job."""


class ProcrastinateDelivery:
    """JobDelivery whose tickets commit, or vanish, with the rows of their jobs."""

    async def enqueue(self, session: AsyncSession, kind: str, count: int) -> None:
        """Put `count` tickets out, over the session's own connection."""
        if count < 1:
            return
        await carry_out(session, _PUT_OUT, {"kind": kind, "count": count})


class Tickets:
    """The side of a worker: takes tickets, and looks after those that nobody holds any more."""

    def __init__(self, url: str, database: Database, kinds: Collection[str]) -> None:
        self._url = url.replace("postgresql+psycopg:", "postgresql:")
        self._database = database
        self._kinds = kinds
        self._app = App(connector=PsycopgConnector())

    @asynccontextmanager
    async def opened(self, take_turn: Callable[[str], Awaitable[None]]) -> AsyncIterator[None]:
        """Hold connections until the end of the block; the database may come later, or go.

        `take_turn` is what a ticket leads to; it is given the kind.
        """

        async def run(kind: str) -> None:
            await take_turn(kind)

        self._app.task(name=TASK)(run)
        pool: AsyncConnectionPool[AsyncConnection] = AsyncConnectionPool(
            self._url,
            min_size=1,
            max_size=4,
            open=False,
            timeout=_POOL_WAIT_S,
            check=AsyncConnectionPool.check_connection,
        )
        await pool.open(wait=False)
        try:
            async with self._app.open_async(pool):
                yield
        finally:
            await pool.close()

    async def take(self, queues: Collection[str], concurrency: int, *, dead_after_s: float) -> None:
        """Take tickets, so many at a time, until cancelled; then this ends with the last of them.

        It ends by itself when the database is lost.
        """
        await self._app.run_worker_async(
            queues=sorted(queues),
            concurrency=concurrency,
            delete_jobs="always",
            install_signal_handlers=False,
            fetch_job_polling_interval=_LOOK_EVERY_S,
            abort_job_polling_interval=600.0,  # tickets are never aborted
            update_heartbeat_interval=dead_after_s / 3,
            stalled_worker_timeout=dead_after_s,
        )

    async def top_up(self) -> None:
        """Put out what is missing: every waiting job has a ticket of its kind. More do no harm."""
        async with self._database.write() as store:
            for kind in self._kinds:
                queues = list(await self._app.job_manager.list_queues_async(queue=kind))
                out = sum(queue["todo"] for queue in queues)
                await store.jobs.put_tickets_out(kind, out)

    async def clear(self, dead_after_s: float) -> None:
        """Delete the tickets that lost workers held, and what is left of finished ones."""
        held = self._app.job_manager
        await held.prune_stalled_workers(dead_after_s)
        for ticket in await held.get_stalled_jobs(seconds_since_heartbeat=dead_after_s):
            with contextlib.suppress(ConnectorException):  # another sweep was first
                await held.finish_job(ticket, Status.ABORTED, delete_job=True)
        await held.delete_old_jobs(
            _KEEP_FINISHED_H, include_failed=True, include_cancelled=True, include_aborted=True
        )
