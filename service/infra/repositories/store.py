"""All repositories over one transaction, and locks that are not rows'."""

import hashlib
from collections.abc import Collection
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.core.fairness import Crowd
from service.core.generation import Found
from service.infra.chores import Chores
from service.infra.delivery import JobDelivery
from service.infra.image_deletions import ImageDeletions
from service.infra.pipelines import pipeline
from service.infra.repositories.adapters import Adapters
from service.infra.repositories.base import is_sqlite
from service.infra.repositories.choices import Choices
from service.infra.repositories.claims import Claims
from service.infra.repositories.idempotency import Idempotency
from service.infra.repositories.images import Images
from service.infra.repositories.jobs import Jobs
from service.infra.repositories.keys import Keys
from service.infra.repositories.meeting import CROWD, HELD, Held, Person, crowd_of, named
from service.infra.repositories.profiles import Profiles
from service.infra.repositories.users import SEEN_TO, Users
from service.infra.repositories.workers import Workers
from service.infra.retention import Due
from service.infra.tombstones import Tombstones


class Store:
    """All repositories over one session."""

    def __init__(self, session: AsyncSession, delivery: JobDelivery) -> None:
        self.session = session
        self.keys = Keys(session)
        self.users = Users(session)
        self.choices = Choices(session)
        self.profiles = Profiles(session)
        self.jobs = Jobs(session, delivery)
        self.claims = Claims(session, delivery)
        self.images = Images(session)
        self.idempotency = Idempotency(session)
        self.workers = Workers(session)
        self.adapters = Adapters(session)
        self.deletions = ImageDeletions(session)
        self.tombstones = Tombstones(session)
        self.due = Due(session)
        self.chores = Chores(session)

    async def meet(
        self, people: Collection[Person], owners: Collection[Person], kind: str
    ) -> tuple[dict[Person, Held], Crowd]:
        """Those of these people whom it can hold at once, and `Jobs.crowd` as owners come to it.

        Left out are those who are new, who were not seen for a day, or whom somebody is erasing:
        this waits for nobody, so it needs no order either.
        """
        since = datetime.now(UTC) - SEEN_TO
        async with pipeline(self.session) as send:
            found = await send(HELD, {"people": named(people), "since": since})
            waiting = await send(CROWD, {"kind": kind, "owners": named(owners)})
        held = {(row[0], row[1]): Held(row[2], Found(row[3], row[4])) for row in await found()}
        return held, crowd_of(await waiting())

    async def alone(self, purpose: str) -> None:
        """Wait until no other transaction of any process is at this; hold it until the end."""
        if not is_sqlite(self.session):
            await self.session.execute(select(func.pg_advisory_xact_lock(_lock_number(purpose))))

    async def alone_now(self, purpose: str) -> bool:
        """Hold this until the end of the transaction; false when another transaction does.

        On SQLite there is no other transaction.
        """
        if is_sqlite(self.session):
            return True
        lock = select(func.pg_try_advisory_xact_lock(_lock_number(purpose)))
        return bool(await self.session.scalar(lock))


def _lock_number(purpose: str) -> int:
    """64 bits, signed, as advisory locks are named."""
    digest = hashlib.sha256(f"ppd {purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
