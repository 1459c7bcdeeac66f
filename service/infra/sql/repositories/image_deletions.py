"""Pictures that are to go: noted in the commit that makes them go, deleted after it."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, delete, select

from service.infra.sql.clock import present
from service.infra.sql.repositories.base import Repository
from service.infra.sql.tables import Image, ImageToDelete


class ImageDeletions(Repository):
    """The notes. Whoever notes the same picture at the same time leaves it noted once."""

    async def note(self, which: ColumnElement[bool]) -> None:
        """Pictures whose rows go in this transaction."""
        keys = select(Image.key, present()).where(which)
        noted = self._insert(ImageToDelete).from_select(["key", "asked_at"], keys)
        await self._session.execute(noted.on_conflict_do_nothing())

    async def note_keys(self, keys: Sequence[str]) -> None:
        if keys:
            rows = [{"key": key, "asked_at": present()} for key in keys]
            noted = self._insert(ImageToDelete).values(rows)
            await self._session.execute(noted.on_conflict_do_nothing())

    async def oldest(self, count: int) -> list[str]:
        oldest = select(ImageToDelete.key).order_by(ImageToDelete.asked_at, ImageToDelete.key)
        return list(await self._session.scalars(oldest.limit(count)))

    async def done(self, keys: Sequence[str]) -> None:
        await self._session.execute(delete(ImageToDelete).where(ImageToDelete.key.in_(keys)))
