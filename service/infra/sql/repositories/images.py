"""Stored pictures."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, case, delete, func, or_, select

from service.infra.sql.jobs.jobs import jobs_about
from service.infra.sql.repositories.base import ID, Repository
from service.infra.sql.repositories.image_deletions import ImageDeletions
from service.infra.sql.tables import Image, Job

_EQUAL_JOBS = 8


class Images(Repository):
    """Stored pictures."""

    async def find(self, tenant: str, image_id: str) -> Image | None:
        """The tenant's picture of this id."""
        if not ID.fullmatch(image_id):  # PostgreSQL takes not every text
            return None
        return await self._session.scalar(
            select(Image).where(Image.id == image_id, Image.tenant == tenant)
        )

    async def get(self, image_id: str) -> Image | None:
        """Any tenant's picture of this id."""
        return await self._session.get(Image, image_id) if ID.fullmatch(image_id) else None

    async def add(self, images: Sequence[Image]) -> None:
        """Store rows of pictures whose bytes are already in the image store."""
        self._session.add_all(images)
        await self._session.flush()

    async def by_id(self, ids: Sequence[str]) -> dict[str, Image]:
        rows = await self._session.scalars(select(Image).where(Image.id.in_(ids)))
        return {row.id: row for row in rows}

    async def page(
        self, user_pk: str, before: tuple[datetime, str] | None, limit: int
    ) -> Sequence[tuple[Image, Job]]:
        """Pictures made for a user, newest first, with their jobs."""
        statement = (
            select(Image, Job)
            .join(Job, Job.id == Image.job_id)
            .where(Image.user_pk == user_pk, Image.kind == "generated")
            .order_by(Image.created_at.desc(), Image.id.desc())
            .limit(limit)
        )
        if before is not None:
            at, image_id = before
            statement = statement.where(
                case(
                    (Image.created_at == at, Image.id < image_id),
                    else_=Image.created_at < at,
                )
            )
        return [(row[0], row[1]) for row in await self._session.execute(statement)]

    async def of_equal(
        self, tenant: str, sha256s: Sequence[str], count: int
    ) -> list[tuple[list[Image], dict[str, Any]]]:
        """Pictures of jobs for requests of these hashes, each job's with its result, oldest first.

        Of the latest few jobs only, and only where all of the `count` pictures are there.
        """
        statement = (
            select(Image, Job.result)
            .join(Job, Job.id == Image.job_id)
            .where(Job.request_sha256.in_(sha256s), Job.status == "succeeded", Job.tenant == tenant)
            .order_by(Job.finished_at.desc(), Job.id, Image.position)
            .limit(_EQUAL_JOBS * count)
        )
        found: dict[str | None, tuple[list[Image], dict[str, Any]]] = {}
        for image, result in await self._session.execute(statement):
            found.setdefault(image.job_id, ([], result))[0].append(image)
        return [one for one in found.values() if len(one[0]) == count][::-1]

    async def ids_of_user(self, user_pk: str) -> list[str]:
        """All pictures of a user, those of blends too, oldest first."""
        about = pictures_about(user_pk)
        oldest_first = select(Image.id).where(about).order_by(Image.created_at, Image.id)
        return list(await self._session.scalars(oldest_first))

    async def keys_of_jobs(self, job_ids: Sequence[str]) -> list[str]:
        """Where the image store has what these few hundred jobs have made."""
        return list(await self._session.scalars(select(Image.key).where(Image.job_id.in_(job_ids))))

    async def uploads(self, user_pk: str) -> tuple[int, int]:
        """How many own pictures a user has sent, and their size in bytes.

        What follows from it holds for who has the user alone.
        """
        row = (
            await self._session.execute(
                select(func.count(), func.coalesce(func.sum(Image.size_bytes), 0)).where(
                    Image.user_pk == user_pk, Image.kind == "upload"
                )
            )
        ).one()
        return int(row[0]), int(row[1])

    async def remove(self, ids: Sequence[str]) -> list[str]:
        """Delete these rows, and note their bytes to be deleted; gives the bytes' keys."""
        which = Image.id.in_(ids)
        keys = await self._all(select(Image.key).where(which))
        await ImageDeletions(self._session).note(which)
        await self._session.execute(delete(Image).where(which))
        return list(keys)

    async def known(self, keys: Sequence[str]) -> set[str]:
        """Those of a job's or a request's few keys that a row points to."""
        return set(await self._session.scalars(select(Image.key).where(Image.key.in_(keys))))


def pictures_about(user_pk: str) -> ColumnElement[bool]:
    """A user's pictures, and those of jobs that used the user's taste."""
    return or_(Image.user_pk == user_pk, Image.job_id.in_(jobs_about(user_pk)))
