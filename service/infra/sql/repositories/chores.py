"""Which of all processes does what only one of them is to do now and then."""

from datetime import timedelta

from sqlalchemy import CursorResult, update
from sqlalchemy.ext.asyncio import AsyncSession

from service.infra.sql.clock import in_seconds, present
from service.infra.sql.tables import Chore


class Chores:
    """Begun in turn, over one session. The migration writes a row for each."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def begin(self, name: str, every: timedelta) -> bool:
        """Whether it is due, and so this caller's to do; nobody else gets it before `every`."""
        due = update(Chore).where(
            Chore.name == name, Chore.begun_at < in_seconds(-every.total_seconds())
        )
        result = await self._session.execute(due.values(begun_at=present()))
        assert isinstance(result, CursorResult)
        return result.rowcount == 1
