"""How long things are kept, and the repository that finds what is due."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import delete, exists, func, select

from service.core.auth import BROWSER_TENANT
from service.core.messages import TERMINAL
from service.infra.sql.jobs.jobs import IN_A_PERSONS_TASTE
from service.infra.sql.repositories.base import Repository
from service.infra.sql.repositories.image_deletions import ImageDeletions
from service.infra.sql.tables import Image, Job, User

JobsOf = Literal["everybody", "nobody", "sessions in vain"]
"""Whose jobs: `nobody`'s are in no person's name and taste; the last made no picture,
or were given that of an equal one."""


@dataclass(frozen=True)
class Retention:
    """After this long a thing is deleted; None keeps it for ever."""

    pictures: timedelta | None = None
    """Pictures that were made, from when they were."""
    jobs: timedelta | None = None
    """Jobs, from their end, with their pictures."""
    inactive_users: timedelta | None = None
    """People, from the last time that something was asked in their name."""
    sessions: timedelta | None = None
    """People of browser sessions, in the same way."""
    jobs_of_nobody: timedelta | None = None
    """Jobs in nobody's name and taste, from their end, with their pictures."""
    cookies: timedelta = timedelta(days=365)
    """For so long a session's cookie is taken, and it is known that it has ended."""
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

    async def delete_jobs(
        self, ended_before: datetime, count: int, of: JobsOf = "everybody"
    ) -> int:
        """Delete rows of jobs, with those of their pictures, and note the bytes."""
        due = select(Job.id).where(Job.status.in_(TERMINAL), Job.finished_at < ended_before)
        if of == "nobody":
            due = due.where(Job.user_pk.is_(None), ~IN_A_PERSONS_TASTE)
        elif of == "sessions in vain":
            made_none = (Job.kind == "generate") & ~exists().where(Image.job_id == Job.id)
            in_vain = (Job.status != "succeeded") | made_none
            due = due.where(Job.tenant == BROWSER_TENANT, in_vain)
        free = due.limit(count).with_for_update(skip_locked=True)  # the others are being erased
        ids = await self._all(free)
        await ImageDeletions(self._session).note(Image.job_id.in_(ids))
        await self._session.execute(delete(Job).where(Job.id.in_(ids)))
        return len(ids)

    async def inactive_users(
        self, seen_before: datetime, count: int, tenant: str | None = None
    ) -> Sequence[tuple[str, str]]:
        """Tenant and id of people (of this tenant) for whom nothing was asked since."""
        seen_at = func.coalesce(User.seen_at, User.created_at)
        due = select(User.tenant, User.user_id).where(seen_at < seen_before)
        due = due.where(User.owner_pk.is_(None))
        if tenant is not None:
            due = due.where(User.tenant == tenant)
        return [(row[0], row[1]) for row in await self._session.execute(due.limit(count))]
