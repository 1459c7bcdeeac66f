"""What earlier POSTs led to."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete, select

from service.infra.sql.clock import in_seconds, present
from service.infra.sql.repositories.base import Repository
from service.infra.sql.tables import IdempotencyKey, Job

TRIED_AGAIN_WITHIN_S = 900.0
"""OpenAI's clients wait ten minutes for an answer, and then some seconds before they try again."""


class Idempotency(Repository):
    """What earlier POSTs led to."""

    async def find(self, caller: str, key: str) -> IdempotencyKey | None:
        return await self._session.get(IdempotencyKey, (caller, key))

    async def of_user(self, user_pk: str) -> Sequence[IdempotencyKey]:
        """Those of requests about a user; they are kept for two days."""
        theirs = IdempotencyKey.user_pk == user_pk
        oldest_first = select(IdempotencyKey).where(theirs).order_by(IdempotencyKey.created_at)
        return await self._all(oldest_first)

    async def take_up(
        self, caller: str, fingerprint: str, tries: int, within_s: float
    ) -> IdempotencyKey | None:
        """An equal request that was tried less often than this one, which takes its place.

        First what was refused, then what has not ended, then the newest. The caller is alone at it.
        """
        statement = (
            select(IdempotencyKey)
            .outerjoin(Job, Job.id == IdempotencyKey.job_id)
            .where(
                IdempotencyKey.fingerprint == fingerprint,
                IdempotencyKey.caller == caller,
                IdempotencyKey.tries < tries,
                IdempotencyKey.created_at > in_seconds(-within_s),
            )
            .order_by(
                IdempotencyKey.job_id.is_not(None),
                Job.finished_at.is_not(None),
                IdempotencyKey.created_at.desc(),
            )
            .limit(1)
        )
        found = await self._session.scalar(statement)
        if found is not None:
            found.tries = tries
            found.created_at = present()
            await self._session.flush()
            await self._session.refresh(found)
        return found

    async def add(self, record: IdempotencyKey) -> None:
        self._session.add(record)
        await self._session.flush()

    async def prune(self, older_than: timedelta) -> int:
        """Delete what is older, and refused tries as soon as nobody takes them up any more."""
        refused = IdempotencyKey.tries.is_not(None) & IdempotencyKey.job_id.is_(None)
        created = IdempotencyKey.created_at
        old = created < in_seconds(-older_than.total_seconds())
        given_up = refused & (created < in_seconds(-TRIED_AGAIN_WITHIN_S))
        return await self._changed(delete(IdempotencyKey).where(old | given_up))
