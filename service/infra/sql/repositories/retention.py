"""How long things are kept, and the repository that finds what is due."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select

from service.core.messages import TERMINAL
from service.infra.sql.repositories.base import Repository
from service.infra.sql.repositories.image_deletions import ImageDeletions
from service.infra.sql.tables import Image, Job, User


@dataclass(frozen=True)
class Retention:
    """After this long a thing is deleted; None keeps it for ever."""

    pictures: timedelta | None = None
    """Pictures that were made, from when they were."""
    jobs: timedelta | None = None
    """Jobs, from their end, with their pictures."""
    inactive_users: timedelta | None = None
    """People, from the last time that something was asked in their name."""
    audit: timedelta | None = None
    """Entries of the audit record."""


class Due(Repository):
    """What was kept long enough; each call takes `count` of it at most."""

    async def delete_pictures(self, made_before: datetime, count: int) -> int:
        """Delete rows of made pictures, and note their bytes."""
        due = select(Image.id).where(Image.kind == "generated", Image.created_at < made_before)
        free = due.limit(count).with_for_update(skip_locked=True)  # the others are being erased
        ids = await self._all(free)
        await ImageDeletions(self._session).note(Image.id.in_(ids))
        await self._session.execute(delete(Image).where(Image.id.in_(ids)))
        return len(ids)

    async def delete_jobs(self, ended_before: datetime, count: int) -> int:
        """Delete rows of jobs, with those of their pictures, and note the bytes."""
        due = select(Job.id).where(Job.status.in_(TERMINAL), Job.finished_at < ended_before)
        free = due.limit(count).with_for_update(skip_locked=True)  # the others are being erased
        ids = await self._all(free)
        await ImageDeletions(self._session).note(Image.job_id.in_(ids))
        await self._session.execute(delete(Job).where(Job.id.in_(ids)))
        return len(ids)

    async def inactive_users(self, seen_before: datetime, count: int) -> Sequence[tuple[str, str]]:
        """Tenant and id of people for whom nothing was asked since."""
        seen_at = func.coalesce(User.seen_at, User.created_at)
        due = select(User.tenant, User.user_id).where(seen_at < seen_before)
        return [(row[0], row[1]) for row in await self._session.execute(due.limit(count))]
