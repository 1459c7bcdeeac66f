"""Which of all processes does what only one of them is to do now and then."""

from datetime import timedelta

from sqlalchemy import update

from service.infra.sql.clock import in_seconds, present
from service.infra.sql.repositories.base import Repository
from service.infra.sql.tables import Chore


class Chores(Repository):
    """Begun in turn. The migration writes a row for each."""

    async def begin(self, name: str, every: timedelta) -> bool:
        """Whether it is due, and so this caller's to do; nobody else gets it before `every`."""
        due = update(Chore).where(
            Chore.name == name, Chore.begun_at < in_seconds(-every.total_seconds())
        )
        return await self._changed(due.values(begun_at=present())) == 1
