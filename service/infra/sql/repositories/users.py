"""People, and their erasure with all that is theirs."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, func, select, update

from service.core.auth import BROWSER_TENANT, MAX_TASTES, person_of, taste_of
from service.core.errors import ServiceError
from service.infra.sql.jobs.jobs import jobs_about, tastes_about
from service.infra.sql.repositories.base import FRESH, Repository
from service.infra.sql.repositories.image_deletions import ImageDeletions
from service.infra.sql.repositories.images import Images, pictures_about
from service.infra.sql.repositories.tombstones import Tombstones
from service.infra.sql.tables import (
    Choice,
    EndedSession,
    IdempotencyKey,
    Image,
    Job,
    JobSubject,
    Profile,
    Reading,
    User,
)

SEEN_TO = timedelta(days=1)
"""`seen_at` is not written again sooner."""


@dataclass(frozen=True)
class Erased:
    """Who and what went: the ids of jobs, the keys of pictures, and counts."""

    user_pk: str
    taste_pks: list[str]
    """Of the person's named tastes."""
    job_ids: list[str]
    running: list[str]
    image_keys: list[str]
    choices: int
    profiles: int


class Kept(NamedTuple):
    """How much of a tenant is kept."""

    people: int
    rows: int
    """Of jobs, versions of profiles, readings, remembered requests and further tastes."""
    picture_bytes: int


@dataclass(frozen=True)
class RemovedTaste:
    """What went with a taste: the keys of pictures, and counts."""

    image_keys: list[str]
    choices: int
    profiles: int


class Users(Repository):
    """People and their tastes, which are found by `service.core.auth.named`."""

    async def find(self, tenant: str, user_id: str) -> User | None:
        return await self._session.scalar(
            select(User).where(User.tenant == tenant, User.user_id == user_id)
        )

    async def hold(self, tenant: str, user_id: str) -> User | None:
        """The user, who is not erased before this transaction ends."""
        return await self._locked(tenant, user_id, read=True, key_share=True)

    async def hold_pk(self, pk: str) -> bool:
        """The same by our own name for the user; false when there is none (any more)."""
        statement = select(User.pk).where(User.pk == pk).with_for_update(read=True, key_share=True)
        return await self._session.scalar(statement) is not None

    async def alone(self, tenant: str, user_id: str) -> User | None:
        """The user, whose answers, versions and uploads only this transaction changes now.

        Of a taste the person first: uploads are counted over all of them.
        """
        if taste_of(user_id) is not None and not await self.alone(tenant, person_of(user_id)):
            return None
        user = await self._locked(tenant, user_id, key_share=True)
        return user and _seen_now(user)

    async def several_alone(self, pks: Collection[str]) -> dict[str, User]:
        """Those of these people who are there, alone, by their pks. For one who has none."""
        rows = await self._session.scalars(
            select(User)
            .where(User.pk.in_(pks))
            .order_by(User.user_id)
            .with_for_update(key_share=True)
            .execution_options(**FRESH)
        )
        return {row.pk: row for row in rows}

    async def _locked(
        self, tenant: str, user_id: str, *, read: bool = False, key_share: bool = False
    ) -> User | None:
        user: User | None = await self._session.scalar(
            select(User)
            .where(User.tenant == tenant, User.user_id == user_id)
            .with_for_update(read=read, key_share=key_share)
            .execution_options(**FRESH)
        )
        return user

    async def get_or_create(
        self, tenant: str, user_id: str, *, alone: bool = False, lane: str | None = None
    ) -> User:
        """The user, held (or held alone), made now on first use. Needs a write transaction.

        `lane`: whose address it is that makes a session's person.
        Who needs several people asks for them in the order of their user ids, tastes after their
        person. Raises 409 for a taste more than a person may have.
        """
        find = self.alone if alone else self.hold
        if taste_of(user_id) is not None:
            person = person_of(user_id)
            owner = await self.get_or_create(tenant, person, alone=alone, lane=lane)
            return await find(tenant, user_id) or await self._new_taste(owner, user_id)
        while True:
            user = await find(tenant, user_id)
            if user is not None:
                return _seen_now(user)
            if tenant == BROWSER_TENANT and await self.session_ended(user_id):
                raise ServiceError(401, "session_ended")
            insert = self._insert(User).values(tenant=tenant, user_id=user_id, lane=lane)
            made: User | None = await self._session.scalar(
                insert.on_conflict_do_nothing().returning(User)
            )
            if made is not None:
                return made
            # Somebody else made this user meanwhile, and may have erased it again.

    async def in_use(self, tenant: str, user_id: str, *, lane: str | None = None) -> User:
        """The same of a person; raises 404 for a taste that the person has not."""
        if taste_of(user_id) is None:
            return await self.get_or_create(tenant, user_id, lane=lane)
        user = await self.hold(tenant, user_id)
        if user is None:
            raise ServiceError(404, "taste_not_found")
        return _seen_now(user)

    async def _new_taste(self, owner: User, name: str) -> User:
        """A further taste of a person who is held."""
        has = select(func.count()).select_from(User).where(User.owner_pk == owner.pk)
        if (await self._session.scalar(has) or 0) >= MAX_TASTES:
            raise ServiceError(409, "too_many_tastes")
        of_person = {"tenant": owner.tenant, "lane": owner.lane, "owner_pk": owner.pk}
        taste = User(**of_person, user_id=name, taste=taste_of(name))
        taste.contributes_since = owner.contributes_since
        self._session.add(taste)
        await self._session.flush()
        await self._session.refresh(taste)
        return taste

    async def tastes_of(self, person_pk: str) -> Sequence[User]:
        """A person's tastes: the first, then the others by name."""
        theirs = select(User).where(User.pk.in_(tastes_about(person_pk)))
        return await self._all(theirs.order_by(User.owner_pk.is_not(None), User.taste))

    async def kept_by(self, tenant: str, lane: str | None = None) -> Kept:
        """How much is kept of all its people, and of nobody; or of an address's people alone."""
        whose = [User.tenant == tenant, *([User.lane == lane] if lane else [])]
        theirs = select(User.pk).where(*whose)
        of_jobs = Job.user_pk.in_(theirs) if lane else Job.tenant == tenant
        of_images = Image.user_pk.in_(theirs) if lane else Image.tenant == tenant
        all_tastes = select(func.count()).select_from(User).where(*whose)
        people = all_tastes.where(User.owner_pk.is_(None))
        tastes = all_tastes.where(User.owner_pk.is_not(None))
        jobs = select(func.count()).select_from(Job).where(of_jobs)
        versions = select(func.count()).select_from(Profile).where(Profile.user_pk.in_(theirs))
        readings = select(func.count()).select_from(Reading).where(Reading.user_pk.in_(theirs))
        requests = select(func.count()).where(IdempotencyKey.user_pk.in_(theirs))
        images = select(func.coalesce(func.sum(Image.size_bytes), 0)).where(of_images)
        counts = (people, images, jobs, versions, readings, requests, tastes)
        columns = (one.scalar_subquery() for one in counts)
        row = (await self._session.execute(select(*columns))).one()
        return Kept(row[0], sum(row[2:]), int(row[1]))

    async def end_session(self, user_id: str) -> None:
        """The browser session of this person opens nothing any more, wherever its cookie is."""
        ended = self._insert(EndedSession).values(user_sha256=_sha256(user_id))
        await self._session.execute(ended.on_conflict_do_nothing())

    async def session_ended(self, user_id: str) -> bool:
        return await self._session.get(EndedSession, _sha256(user_id)) is not None

    async def forget_ended_sessions(self, before: datetime) -> int:
        """Those whose cookies are too old to be taken anyway."""
        return await self._changed(delete(EndedSession).where(EndedSession.ended_at < before))

    async def user_id(self, pk: str) -> str | None:
        """The tenant's own name for this user."""
        return await self._session.scalar(select(User.user_id).where(User.pk == pk))

    async def erase(
        self, tenant: str, user_id: str, unseen_for: timedelta | None = None
    ) -> Erased | None:
        """Delete the user, what hangs on it, and every job and picture that used its taste.

        The pictures' bytes are noted to be deleted, and the user as erased, in the same commit.
        None when there is no such user, or one who was seen (where it is asked for how long not).
        """
        user = await self._locked(tenant, user_id)
        if user is None or user.owner_pk is not None:
            return None
        if unseen_for is not None:
            seen_at = user.seen_at or user.created_at
            if seen_at >= datetime.now(UTC) - unseen_for:
                return None
        of_person = select(User).where(User.pk.in_(tastes_about(user.pk))).order_by(User.user_id)
        tastes = await self._all(of_person.with_for_update())  # people first, as everywhere
        theirs = jobs_about(user.pk)
        jobs = (
            await self._session.execute(
                select(Job.id, Job.status)
                .where(Job.id.in_(theirs))
                .order_by(Job.id)
                .with_for_update(of=Job)
            )
        ).all()
        images = await self._all(select(Image.key).where(pictures_about(user.pk)))
        for taste in tastes:
            await Tombstones(self._session).add(taste)
        await ImageDeletions(self._session).note(pictures_about(user.pk))
        choices, profiles = await self._held_by([taste.pk for taste in tastes])
        await self._session.execute(delete(Job).where(Job.id.in_(theirs)))
        if tenant == BROWSER_TENANT:
            await self.end_session(user_id)
        await self._session.execute(delete(User).where(User.pk == user.pk))
        return Erased(
            user_pk=user.pk,
            taste_pks=[taste.pk for taste in tastes if taste.pk != user.pk],
            job_ids=[job_id for job_id, _ in jobs],
            running=[job_id for job_id, status in jobs if status == "running"],
            image_keys=list(images),
            choices=choices,
            profiles=profiles,
        )

    async def taste_to_remove(self, tenant: str, name: str) -> User | None:
        """A named taste, against all others; its person is held. Of a first one None, too."""
        if taste_of(name) is None:
            return None
        person = await self._locked(tenant, person_of(name), key_share=True)
        return None if person is None else await self._locked(tenant, name)

    async def remove_taste(self, taste: User) -> RemovedTaste:
        """Delete a taste with its answers, versions and uploads. Needs `taste_to_remove`.

        Pictures that were made in it stay the person's, and their jobs are about the person from
        now on, so that they go when the person does. Nothing that uses it may wait or run.
        """
        choices, profiles = await self._held_by([taste.pk])
        answers = await self._all(select(Choice).where(Choice.user_pk == taste.pk))
        sent = [i for answer in answers for i in (answer.image_0_id, answer.image_1_id)]
        keys = await Images(self._session).remove([i for i in sent if i is not None])
        own_uses = (JobSubject.user_pk == taste.pk, JobSubject.shared.is_(False))
        uses = update(JobSubject).where(*own_uses)
        await self._session.execute(uses.values(user_pk=taste.owner_pk, profile_pk=None))
        await Tombstones(self._session).add(taste)
        await self._session.execute(delete(User).where(User.pk == taste.pk))
        return RemovedTaste(keys, choices, profiles)

    async def _held_by(self, pks: Collection[str]) -> tuple[int, int]:
        """How many answers and versions of profiles these tastes have."""
        counts = (
            select(func.count()).select_from(of).where(of.user_pk.in_(pks)).scalar_subquery()
            for of in (Choice, Profile)
        )
        row = (await self._session.execute(select(*counts))).one()
        return row[0], row[1]


def _sha256(user_id: str) -> str:
    return hashlib.sha256(user_id.encode()).hexdigest()


def _seen_now(user: User) -> User:
    if user.seen_at is None or user.seen_at < datetime.now(UTC) - SEEN_TO:
        user.seen_at = datetime.now(UTC)
    return user
