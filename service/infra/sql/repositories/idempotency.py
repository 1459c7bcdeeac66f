"""What earlier POSTs led to."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete, select

from service.infra.sql.clock import in_seconds
from service.infra.sql.repositories.base import Repository
from service.infra.sql.tables import IdempotencyKey


class Idempotency(Repository):
    """What earlier POSTs led to."""

    async def find(self, caller: str, key: str) -> IdempotencyKey | None:
        return await self._session.get(IdempotencyKey, (caller, key))

    async def of_user(self, user_pk: str) -> Sequence[IdempotencyKey]:
        """Those of requests about a user; they are kept for two days."""
        theirs = IdempotencyKey.user_pk == user_pk
        oldest_first = select(IdempotencyKey).where(theirs).order_by(IdempotencyKey.created_at)
        return await self._all(oldest_first)

    async def add(self, record: IdempotencyKey) -> None:
        self._session.add(record)
        await self._session.flush()

    async def prune(self, older_than: timedelta) -> int:
        return await self._changed(
            delete(IdempotencyKey).where(
                IdempotencyKey.created_at < in_seconds(-older_than.total_seconds())
            )
        )
