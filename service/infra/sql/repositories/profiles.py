"""Versions of profiles."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ScalarSelect, Select, String, bindparam, delete, exists, func, select, update

from service.core.generation import Found
from service.infra.sql.repositories.base import FRESH, Repository, table
from service.infra.sql.tables import JobSubject, Profile, User

KEPT_VERSIONS = 100
"""Of one person: older ones that nothing refers to are forgotten when another begins."""
_USERS, _PROFILES = table(User).c, table(Profile).c


def newest_pk(status: str) -> ScalarSelect[str]:
    """A user's newest version in this state, in a query of users."""
    return (
        select(_PROFILES.pk)
        .where(_PROFILES.user_pk == _USERS.pk, _PROFILES.status == status)
        .order_by(_PROFILES.version.desc())
        .limit(1)
        .scalar_subquery()
    )


_NEWEST = select(newest_pk("ready"), newest_pk("encoding")).where(
    _USERS.pk == bindparam("user_pk", type_=String)
)


class Profiles(Repository):
    """Versions of profiles."""

    async def of(self, user_pk: str) -> Sequence[Profile]:
        theirs = select(Profile).where(Profile.user_pk == user_pk)
        return await self._all(theirs.order_by(Profile.version))

    async def page(self, user_pk: str, before: int | None, limit: int) -> Sequence[Profile]:
        """A user's versions below this one, newest first."""
        newest = select(Profile).where(Profile.user_pk == user_pk)
        if before is not None:
            newest = newest.where(Profile.version < before)
        return await self._all(newest.order_by(Profile.version.desc()).limit(limit))

    async def states(self, user_pk: str) -> tuple[Profile | None, str | None]:
        """The newest version that is ready, and the state of the newest that counts."""
        standing = await self.standing(user_pk)
        return await self.newest(user_pk, "ready"), standing.status if standing else None

    async def prune(self, user_pk: str) -> int:
        """Forget versions beyond the newest `KEPT_VERSIONS` of a user, with their readings' jobs.

        What a picture's job is pinned to stays as long as that, what is in use or on its way too.
        Needs the user alone.
        """
        kept = select(Profile.pk).where(Profile.user_pk == user_pk)
        kept = kept.order_by(Profile.version.desc()).limit(KEPT_VERSIONS)
        ready = await self.newest(user_pk, "ready")
        old = delete(Profile).where(
            Profile.user_pk == user_pk,
            Profile.pk.not_in(kept),
            Profile.pk != (ready.pk if ready is not None else ""),
            Profile.status != "encoding",
            ~exists().where(JobSubject.profile_pk == Profile.pk),
        )
        return await self._changed(old)

    async def get(self, pk: str) -> Profile | None:
        return await self._session.get(Profile, pk)

    async def newest_pks(self, user_pk: str) -> Found:
        """The newest version that is ready, and the newest that is on its way."""
        return Found(*(await self._session.execute(_NEWEST, {"user_pk": user_pk})).one())

    async def newest(
        self, user_pk: str, status: str, encoder_version: str | None = None
    ) -> Profile | None:
        """The newest version in this state (and of this encoder, when given)."""
        statement = (
            select(Profile)
            .where(Profile.user_pk == user_pk, Profile.status == status)
            .order_by(Profile.version.desc())
            .limit(1)
        )
        if encoder_version is not None:
            statement = statement.where(Profile.encoder_version == encoder_version)
        return await self._as_it_is(statement)

    async def standing(self, user_pk: str) -> Profile | None:
        """The newest version that was not superseded."""
        return await self._as_it_is(
            select(Profile)
            .where(Profile.user_pk == user_pk, Profile.status != "superseded")
            .order_by(Profile.version.desc())
            .limit(1)
        )

    async def _as_it_is(self, statement: Select[Profile]) -> Profile | None:
        """Not as this transaction has seen it before: meanwhile it may have become ready."""
        found: Profile | None = await self._session.scalar(statement.execution_options(**FRESH))
        return found

    async def add(
        self, user_pk: str, source: str, choices: list[Any], seed: int, text: str | None
    ) -> Profile:
        """Begin the next version, to be encoded. Needs the user alone."""
        last = await self._session.scalar(
            select(func.max(Profile.version)).where(Profile.user_pk == user_pk)
        )
        profile = Profile(
            user_pk=user_pk,
            version=(last or 0) + 1,
            source=source,
            status="encoding",
            choices=choices,
            seed=seed,
            text=text,
        )
        self._session.add(profile)
        await self._session.flush()
        await self.prune(user_pk)
        return profile

    async def finish(self, pk: str, status: str, **values: Any) -> bool:
        """End the encoding of a version; false when it is not being encoded any more."""
        statement = update(Profile).where(Profile.pk == pk, Profile.status == "encoding")
        return bool(await self._changed(statement.values(status=status, **values)))

    async def supersede(self, user_pk: str) -> None:
        """Let no version of the user stand: what they were read from is gone."""
        await self._session.execute(
            update(Profile).where(Profile.user_pk == user_pk).values(status="superseded")
        )

    async def reopen(self, pk: str) -> bool:
        """Encode a version that failed once more; false when it is in another state."""
        statement = update(Profile).where(Profile.pk == pk, Profile.status == "failed")
        return bool(await self._changed(statement.values(status="encoding", error_code=None)))

    async def stale(
        self, encoder_version: str, user_pks: Collection[str] | None = None
    ) -> list[Profile]:
        """The newest ready version of every user (of these), where another encoder made it.

        Users with a version being encoded already are left out.
        """
        newest = (
            select(Profile.user_pk, func.max(Profile.version).label("version"))
            .where(Profile.status == "ready")
            .group_by(Profile.user_pk)
            .subquery()
        )
        pending = exists().where(Profile.user_pk == newest.c.user_pk, Profile.status == "encoding")
        statement = (
            select(Profile)
            .join(
                newest,
                (Profile.user_pk == newest.c.user_pk) & (Profile.version == newest.c.version),
            )
            .where(Profile.encoder_version != encoder_version, ~pending.correlate(newest))
            .order_by(Profile.user_pk)
        )
        if user_pks is not None:
            statement = statement.where(Profile.user_pk.in_(user_pks))
        return list(await self._session.scalars(statement.execution_options(**FRESH)))
