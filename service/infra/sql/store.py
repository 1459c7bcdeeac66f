"""All repositories over one transaction, and locks that are not rows'."""

import hashlib
from collections.abc import Collection
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.core.fairness import Crowd
from service.core.generation import Found
from service.infra.sql.delivery import JobDelivery
from service.infra.sql.jobs.claims import Claims
from service.infra.sql.jobs.crowd import CROWD, HELD, Held, Person, crowd_of, named
from service.infra.sql.jobs.jobs import Jobs
from service.infra.sql.oversight.audit import Audit
from service.infra.sql.oversight.blind_choices import BlindChoices
from service.infra.sql.oversight.exports import Exports
from service.infra.sql.oversight.reports import Reports
from service.infra.sql.pipelines import pipeline
from service.infra.sql.repositories.adapters import Adapters
from service.infra.sql.repositories.base import is_sqlite
from service.infra.sql.repositories.choices import Choices
from service.infra.sql.repositories.chores import Chores
from service.infra.sql.repositories.idempotency import Idempotency
from service.infra.sql.repositories.image_deletions import ImageDeletions
from service.infra.sql.repositories.images import Images
from service.infra.sql.repositories.keys import Keys
from service.infra.sql.repositories.profiles import Profiles
from service.infra.sql.repositories.readings import Readings
from service.infra.sql.repositories.retention import Due
from service.infra.sql.repositories.taste_shares import TasteShares
from service.infra.sql.repositories.tombstones import Tombstones
from service.infra.sql.repositories.users import SEEN_TO, Users
from service.infra.sql.repositories.workers import Workers


class Store:
    """All repositories over one session."""

    def __init__(self, session: AsyncSession, delivery: JobDelivery) -> None:
        self.session = session
        self.keys = Keys(session)
        self.users = Users(session)
        self.choices = Choices(session)
        self.blind_choices = BlindChoices(session)
        self.profiles = Profiles(session)
        self.readings = Readings(session)
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
        self.audit = Audit(session)
        self.reports = Reports(session)
        self.exports = Exports(session)
        self.taste_shares = TasteShares(session)

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
