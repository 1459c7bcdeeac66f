"""People who were erased, until nothing that ran then can bring anything of theirs back."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, or_, select, update

from service.infra.sql.clock import in_seconds, present
from service.infra.sql.repositories.base import Repository
from service.infra.sql.tables import ErasedUser, User

SETTLED = timedelta(days=1)
"""After this no job that ran when the person was erased runs any more."""


def _settled() -> ColumnElement[bool]:
    return ErasedUser.erased_at < in_seconds(-SETTLED.total_seconds())


class Tombstones(Repository):
    """Erased users. A tombstone names nobody: no row has its number any more."""

    async def add(self, user: User) -> None:
        """The user is erased in this transaction."""
        self._session.add(ErasedUser(user_pk=user.pk, tenant=user.tenant))
        await self._session.flush()

    async def to_forget(self, count: int) -> Sequence[ErasedUser]:
        """Those whom the cache is to drop: it has not yet, or for the last time."""
        due = or_(ErasedUser.forgotten_at.is_(None), _settled())
        oldest = select(ErasedUser).where(due).order_by(ErasedUser.erased_at)
        return await self._all(oldest.limit(count))

    async def forgotten(self, user_pks: Sequence[str]) -> None:
        """The cache has dropped them; who was erased long ago is not remembered any longer."""
        these = ErasedUser.user_pk.in_(user_pks)
        await self._session.execute(update(ErasedUser).where(these).values(forgotten_at=present()))
        await self._session.execute(delete(ErasedUser).where(these, _settled()))
