"""A SQLite file or a PostgreSQL, as short read and write transactions."""

import asyncio
import contextlib
import logging
import math
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Executable, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from service.core.errors import DatabaseAway
from service.infra import logs
from service.infra.sql.clock import SQLITE_FUNCTION, sqlite_in_seconds
from service.infra.sql.connection_limits import ConnectionLimits
from service.infra.sql.delivery import InProcessDelivery, JobDelivery
from service.infra.sql.json_rows import as_json
from service.infra.sql.pipelines import fetched
from service.infra.sql.store import Store

log = logging.getLogger("ppd.database")

_BUSY_TIMEOUT_MS = 5_000
"""Writers of this process take turns: so long at most another process's lock is waited for."""
_SCRUB_TIMEOUT_MS = 1000
_LOOK_TIMEOUT_S = 1.0
_NOTE_EVERY_S = 30.0


class Database:
    """Opens on construction of the first transaction; `close` ends it."""

    def __init__(
        self,
        url: str,
        delivery: JobDelivery | None = None,
        limits: ConnectionLimits | None = None,
    ) -> None:
        """`limits` are for PostgreSQL; SQLite needs none."""
        self._delivery = delivery or InProcessDelivery()
        self._turn = asyncio.Lock()
        self._to_scrub = True
        self._noted_at_s = -math.inf
        self._locked_s = -math.inf
        """When a writer last gave up waiting for the lock of another process."""
        self._is_sqlite = url.startswith("sqlite")
        if self._is_sqlite:
            # Errors are logged; with their parameters, prompts and profiles would be in the log.
            self._engine = create_async_engine(url, hide_parameters=True, json_serializer=as_json)
            _prepare_sqlite(self._engine)
            self._reader = self._snapshots = self._engine
        else:
            from service.infra.sql import postgres  # the embedded default has no driver for it

            self._engine = postgres.engine(url, limits or ConnectionLimits())
            self._is_away = postgres.is_away
            # At READ COMMITTED each statement is a snapshot of its own, in a transaction or not.
            self._reader = postgres.reader(url, limits or ConnectionLimits())
            self._snapshots = self._engine.execution_options(isolation_level="REPEATABLE READ")
        self._writer = self._engine.execution_options(writes=True)

    @asynccontextmanager
    async def read(self, *, snapshot: bool = False) -> AsyncIterator[Store]:
        """Statements that change nothing; with `snapshot` (on SQLite always) of one moment.

        Raises DatabaseAway where PostgreSQL does not answer.
        """
        engine = self._snapshots if snapshot else self._reader
        with self._noting_absence():
            async with AsyncSession(engine, expire_on_commit=False) as session:
                yield Store(session, self._delivery)

    async def rows(self, statement: Executable, given: Mapping[str, Any]) -> Sequence[Any]:
        """What one statement finds, as `pipelines` takes and gives it.

        For what is asked most often: a session costs more than such a query.
        """
        with self._noting_absence():
            async with self._reader.connect() as connection:
                return await fetched(connection, statement, given)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Store]:
        """A transaction that commits at the end of the block, all of it or nothing.

        On SQLite it takes the write lock at its start, so what it read stays true. Writers of this
        process take turns in the order in which they came: SQLite's own waiting is not fair, and
        each that waits there would hold a connection that readers need. Where one has waited in
        vain for another process's lock, those behind it have waited as long: DatabaseAway for all.

        On PostgreSQL writers run beside each other, and what was read stays true only behind a
        lock: see `repositories`. Raises DatabaseAway where it does not answer; at the end of the
        block that leaves open whether the transaction was committed.
        """
        with self._noting_absence():
            async with (
                self._in_turn() if self._is_sqlite else contextlib.nullcontext(),
                AsyncSession(self._writer, expire_on_commit=False) as session,
                session.begin(),
            ):
                yield Store(session, self._delivery)

    @asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[None]:
        came_s = time.monotonic()
        async with self._turn:
            if self._locked_s > came_s:
                raise DatabaseAway
            try:
                yield
            except OperationalError as error:
                if _is_busy(error):
                    self._locked_s = time.monotonic()
                raise

    @contextmanager
    def _noting_absence(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            is_away = _is_busy(error) if self._is_sqlite else self._is_away(error)
            if not is_away:
                raise
            self._note_absence(error)
            raise DatabaseAway from error

    def _note_absence(self, error: Exception) -> None:
        """A line in half a minute: every request and every worker finds out for itself."""
        if time.monotonic() - self._noted_at_s < _NOTE_EVERY_S:
            return
        self._noted_at_s = time.monotonic()
        said = logs.error_text(error).partition("\n")[0] or type(error).__name__
        log.error("the database does not answer: %s", said)

    async def why_unwritable(self) -> str | None:
        """Whether another process keeps SQLite's file locked; PostgreSQL is asked by reading."""
        path = self._engine.url.database if self._is_sqlite else None
        locked = path is not None and await asyncio.to_thread(_is_locked, path)
        return "the database is locked by another process" if locked else None

    def free_bytes(self) -> int | None:
        """Room on the disk of SQLite's file; None where it is another machine's."""
        path = self._engine.url.database if self._is_sqlite else None
        if not path:
            return None
        try:
            return shutil.disk_usage(Path(path).parent).free
        except OSError:
            return None  # who writes finds out

    async def scrub(self) -> bool:
        """Whether what was erased is out of the database's files too, as far as can be seen here.

        On SQLite the write-ahead log is folded into the file, which overwrites what it deletes.
        False when that was not possible now, because somebody reads: it is logged, and
        `scrub_again` is to be called until it is. On PostgreSQL always false: its operator says
        when the bytes of deleted rows are overwritten, and how long its log is kept.
        """
        if not self._is_sqlite:
            return False
        self._to_scrub = True
        return await self.scrub_again()

    async def scrub_again(self) -> bool:
        """Do what an earlier `scrub`, or the process before this one, left to do, if anything."""
        if not self._to_scrub or not self._is_sqlite:
            return True
        try:
            self._to_scrub = not await self._fold_log()
        except OperationalError:
            log.exception("the database's log could not be folded")
        if self._to_scrub:
            log.warning("erased rows are still in the database's log; it is folded later")
        return not self._to_scrub

    async def _fold_log(self) -> bool:
        """Whether all of the log is in the file now, and the log empty."""
        async with self._turn, self._engine.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw is not None
            await raw.execute(f"PRAGMA busy_timeout={_SCRUB_TIMEOUT_MS}")  # it holds up writers
            try:
                cursor = await raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                busy, _, _ = await cursor.fetchone()
                await cursor.close()
            finally:
                await raw.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        return not busy

    async def close(self) -> None:
        await self._reader.dispose()
        await self._engine.dispose()


def _is_busy(error: Exception) -> bool:
    orig = error.orig if isinstance(error, OperationalError) else None
    return getattr(orig, "sqlite_errorname", "").startswith("SQLITE_BUSY")


def _is_locked(path: str) -> bool:
    """On a connection of its own, so that no transaction is left where the look is given up."""
    with contextlib.closing(
        sqlite3.connect(path, timeout=_LOOK_TIMEOUT_S, isolation_level=None)
    ) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        connection.execute("ROLLBACK")
        return False


def _prepare_sqlite(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def _connected(dbapi_connection: Any, _: ConnectionPoolEntry) -> None:
        dbapi_connection.create_function(SQLITE_FUNCTION, 1, sqlite_in_seconds)
        # The driver must not begin transactions by itself: `_begin` says which kind it is.
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA secure_delete=ON")
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
