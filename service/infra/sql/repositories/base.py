"""What every repository stands on: a session, our ids, and reading under a lock."""

import re
from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import CursorResult, Executable, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.selectable import TypedReturnsRows

from service.infra.sql.tables import Base

_T = TypeVar("_T")

ID = re.compile(r"[0-9a-f]{32}")
"""What `new_id` makes."""

FRESH = {"populate_existing": True}
"""What is read under a lock is what is stored now, whatever the session has read before."""


def table(of: type[Base]) -> Table:
    """Its rows by their columns, past the session, for statements about many rows at once."""
    assert isinstance(of.__table__, Table)
    return of.__table__


def is_sqlite(session: AsyncSession) -> bool:
    """Whether writing transactions run one at a time anyway."""
    return session.get_bind().dialect.name == "sqlite"


class Repository:
    """Queries about one noun, over one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def _all(self, statement: TypedReturnsRows[_T]) -> Sequence[_T]:
        """What a statement of one thing a row (a column, a table's object) finds."""
        return (await self._session.scalars(statement)).all()

    def _insert(self, into: type[Base]) -> postgresql.Insert | sqlite.Insert:
        """An INSERT that can end with `on_conflict_do_nothing`."""
        return sqlite.insert(into) if is_sqlite(self._session) else postgresql.insert(into)

    async def _changed(self, statement: Executable) -> int:
        result = await self._session.execute(statement)
        assert isinstance(result, CursorResult)
        return result.rowcount
