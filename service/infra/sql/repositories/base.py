"""What every repository stands on: a session, our ids, and reading under a lock."""

import re

from sqlalchemy import CursorResult, Executable, Table
from sqlalchemy.ext.asyncio import AsyncSession

from service.infra.sql.tables import Base

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

    async def _changed(self, statement: Executable) -> int:
        result = await self._session.execute(statement)
        assert isinstance(result, CursorResult)
        return result.rowcount
