"""Statements that do not wait for each other's answers: one round trip for several."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, Protocol

from sqlalchemy import CursorResult, Dialect, Insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.sql.expression import Executable

Rows = Callable[[], Awaitable[Sequence[Any]]]
"""Gives a statement's rows, which are tuples."""


class Send(Protocol):
    """Sends a statement on its way."""

    async def __call__(self, statement: Executable, given: Mapping[str, Any]) -> Rows:
        """`given` are texts, numbers and times. Rows come as the driver gives them."""


@asynccontextmanager
async def pipeline(session: AsyncSession) -> AsyncIterator[Send]:
    """On PostgreSQL statements of the block are sent at once, in order.

    An error comes out at the end of the block, and rows are best asked for after it: within it that
    is a round trip more. Elsewhere each statement is carried out as it is sent. Only for statements
    that live as long as the process, say every value, and take no lists.
    """
    bind = session.get_bind()
    if bind.dialect.name != "postgresql":
        yield _one_by_one(session)
        return
    raw: Any = (await (await session.connection()).get_raw_connection()).driver_connection

    async def send(statement: Executable, given: Mapping[str, Any]) -> Rows:
        cursor = await _sent(raw, statement, given, bind.dialect)

        async def rows() -> Sequence[Any]:
            fetched: Sequence[Any] = await cursor.fetchall()
            return fetched

        return rows

    async with raw.pipeline():
        yield send


async def carry_out(session: AsyncSession, statement: Executable, given: Mapping[str, Any]) -> None:
    """One such statement whose rows nobody wants. In a pipeline's block it goes with the others."""
    raw = (await (await session.connection()).get_raw_connection()).driver_connection
    await _sent(raw, statement, given, session.get_bind().dialect)


async def fetched(
    connection: AsyncConnection, statement: Executable, given: Mapping[str, Any]
) -> Sequence[Any]:
    """The rows of one such statement, on PostgreSQL past SQLAlchemy, which takes longer than it."""
    if connection.dialect.name != "postgresql":
        return (await connection.execute(statement, given)).all()
    raw = (await connection.get_raw_connection()).driver_connection
    rows: Sequence[Any] = await (await _sent(raw, statement, given, connection.dialect)).fetchall()
    return rows


async def _sent(raw: Any, statement: Executable, given: Mapping[str, Any], dialect: Dialect) -> Any:
    text, fixed = _compiled(statement, dialect)
    cursor = raw.cursor()
    # What reads tables is not prepared: a plan of when they were small would stay until they are
    # analysed. What only writes what it is given has one plan.
    only_writes = isinstance(statement, Insert)
    await cursor.execute(text, {**fixed, **given}, prepare=None if only_writes else False)
    return cursor


def _one_by_one(session: AsyncSession) -> Send:
    async def send(statement: Executable, given: Mapping[str, Any]) -> Rows:
        result = await session.execute(statement, given)
        assert isinstance(result, CursorResult)
        found: Sequence[Any] = result.all() if result.returns_rows else ()

        async def rows() -> Sequence[Any]:
            return found

        return rows

    return send


@lru_cache(maxsize=64)
def _compiled(statement: Any, dialect: Dialect) -> tuple[str, dict[str, Any]]:
    """A statement's text, and the values that are written in it."""
    compiled = statement.compile(dialect=dialect)
    return str(compiled), dict(compiled.params)
