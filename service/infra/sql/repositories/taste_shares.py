"""Codes under which tastes are shared."""

from collections.abc import Sequence

from sqlalchemy import delete, func, or_, select

from service.infra.sql.jobs.jobs import tastes_about
from service.infra.sql.repositories.base import ID, Repository
from service.infra.sql.tables import TasteShare, User


class TasteShares(Repository):
    """Codes under which tastes are shared, by their hashes."""

    async def taste_pk(self, code_sha256: str, *, hold: bool = False) -> str | None:
        """The taste that is shared under this code; with `hold` it is not erased before the end."""
        shared = select(User.pk).join(TasteShare, TasteShare.user_pk == User.pk)
        shared = shared.where(TasteShare.code_sha256 == code_sha256)
        if hold:
            shared = shared.with_for_update(read=True, key_share=True, of=User)
        return await self._session.scalar(shared)

    async def of(self, person_pk: str) -> Sequence[tuple[TasteShare, str | None]]:
        """A person's codes with the names of their tastes, oldest first."""
        theirs = select(TasteShare, User.taste).join(User, User.pk == TasteShare.user_pk)
        theirs = theirs.where(TasteShare.user_pk.in_(tastes_about(person_pk)))
        rows = await self._session.execute(theirs.order_by(TasteShare.created_at, TasteShare.id))
        return [(row[0], row[1]) for row in rows]

    async def count(self, person_pk: str) -> int:
        """How many codes a person has. What follows from it holds for who has the person alone."""
        theirs = select(func.count()).where(TasteShare.user_pk.in_(tastes_about(person_pk)))
        return await self._session.scalar(theirs) or 0

    async def add(self, share: TasteShare) -> TasteShare:
        self._session.add(share)
        await self._session.flush()
        await self._session.refresh(share)
        return share

    async def revoke(self, person_pk: str, code_sha256: str, share_id: str) -> bool:
        """Forget a code of this person, by its hash or its id; false when there is none."""
        its = TasteShare.code_sha256 == code_sha256
        if ID.fullmatch(share_id):  # PostgreSQL takes not every text
            its = or_(its, TasteShare.id == share_id)
        theirs = TasteShare.user_pk.in_(tastes_about(person_pk))
        return bool(await self._changed(delete(TasteShare).where(its, theirs)))
