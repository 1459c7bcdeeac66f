"""Every query of the service, one class per noun, together in `Store` over one transaction.

SQLite lets one write transaction run at a time. On PostgreSQL they run beside each other, in any
number of processes, so what a transaction decides by is locked first, and always in this order, so
that no two of them wait for each other: a person's row (of several people, by user id), jobs' rows
(by id), profiles' rows, then the rest.

- A person's answers, profile versions and uploads change under `Users.alone`: one at a time.
- Whatever refers to a person, a new job or a finished picture, holds the row as well, together with
  others who do. An erasure holds it against all of them: it comes before, and they find nobody, or
  after, and takes along what they left.
- A job changes its state by one statement that names the state it leaves, or under its row's lock,
  so of two ends the second finds nothing to end.

Left without a lock, since a queue for it would cost more than the error: how many jobs wait, and
whose turn comes next. Transactions of the same moment do not see each other there, so a limit may
be passed by as many as they write. Requests for pictures that wait in one process are one
transaction, which counts its own; those beside it are of other processes, or alone.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Executable,
    Float,
    Integer,
    ScalarSelect,
    Select,
    String,
    Table,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from service.core.auth import KeyScope
from service.core.fairness import Crowd, present_turn
from service.core.generation import Found
from service.core.messages import (
    SEQ_PER_ATTEMPT,
    JobStatus,
    end_seq,
    first_seq,
    requeued_seq,
)
from service.infra.chores import Chores
from service.infra.clock import UtcDateTime, in_seconds, present
from service.infra.delivery import JobDelivery
from service.infra.given_rows import (
    GivenJobs,
    GivenPeople,
    GivenSubjects,
    as_text,
)
from service.infra.image_deletions import ImageDeletions
from service.infra.pipelines import pipeline
from service.infra.retention import Due
from service.infra.tables import (
    Adapter,
    AdapterActivation,
    ApiKey,
    Base,
    Choice,
    IdempotencyKey,
    Image,
    Job,
    JobSubject,
    Profile,
    User,
    WorkerRow,
    new_id,
)
from service.infra.tombstones import Tombstones

SEEN_TO = timedelta(days=1)
"""`seen_at` is not written again sooner."""

_ID = re.compile(r"[0-9a-f]{32}")
Person = tuple[str, str]
"""A tenant, and its own name for one of its people."""
_FRESH = {"populate_existing": True}
"""What is read under a lock is what is stored now, whatever the session has read before."""


_IS_QUEUED = Job.status == "queued"
_TURNS = select(
    func.max(Job.turn).filter(Job.status == "running").label("running"),
    func.min(Job.turn).filter(_IS_QUEUED).label("coming"),
).where(Job.status.in_(("queued", "running")))


def _table(of: type[Base]) -> Table:
    """Its rows by their columns, past the session, for statements about many rows at once."""
    assert isinstance(of.__table__, Table)
    return of.__table__


_JOBS, _USERS, _PROFILES = _table(Job).c, _table(User).c, _table(Profile).c
_KIND = bindparam("kind", type_=String)
_TENANT = bindparam("tenant", type_=String)
_THE_JOB = select(Job).where(Job.id == bindparam("job_id", type_=String), Job.tenant == _TENANT)
_THE_JOB_LOCKED = _THE_JOB.with_for_update().execution_options(**_FRESH)


def _newest(status: str) -> ScalarSelect[str]:
    return (
        select(_PROFILES.pk)
        .where(_PROFILES.user_pk == _USERS.pk, _PROFILES.status == status)
        .order_by(_PROFILES.version.desc())
        .limit(1)
        .scalar_subquery()
    )


_NEWEST = select(_newest("ready"), _newest("encoding")).where(
    _USERS.pk == bindparam("user_pk", type_=String)
)

_people = GivenPeople.as_table("people")
_HELD = (
    select(_USERS.tenant, _USERS.user_id, _USERS.pk, _newest("ready"), _newest("encoding"))
    .join(_people, (_people.c.tenant == _USERS.tenant) & (_people.c.user_id == _USERS.user_id))
    .where(_USERS.seen_at >= bindparam("since", type_=UtcDateTime))
    .with_for_update(read=True, key_share=True, skip_locked=True, of=_table(User))
)

_owners = GivenPeople.as_table("owners")
_OWNERS = select(_USERS.pk).join(
    _owners, (_owners.c.tenant == _USERS.tenant) & (_owners.c.user_id == _USERS.user_id)
)
_UNENDED = (
    select(
        _JOBS.tenant,
        case((_JOBS.user_pk.in_(_OWNERS), _JOBS.user_pk)).label("user_pk"),
        _JOBS.user_pk.is_(None).label("of_nobody"),
        case((_JOBS.kind == _KIND, 1), else_=0).label("of_kind"),
        _JOBS.status,
        _JOBS.turn,
    )
    # In the text, not beside it: planned for any status, this would read the whole table.
    .where(_JOBS.status.in_((literal_column("'queued'"), literal_column("'running'"))))
    .subquery()
)
_CROWD = select(
    _UNENDED.c.tenant,
    _UNENDED.c.user_pk,
    _UNENDED.c.of_nobody,
    func.count().filter(_UNENDED.c.status == "queued", _UNENDED.c.of_kind == 1).label("waiting"),
    func.max(_UNENDED.c.turn).filter(_UNENDED.c.of_kind == 1).label("last"),
    func.max(_UNENDED.c.turn).filter(_UNENDED.c.status == "running").label("running"),
    func.min(_UNENDED.c.turn).filter(_UNENDED.c.status == "queued").label("coming"),
).group_by(_UNENDED.c.tenant, _UNENDED.c.user_pk, _UNENDED.c.of_nobody)
"""A row for each of these people, and for each tenant two more: jobs of nobody, and of others."""

_SEEN = (
    select(
        _JOBS.id,
        _JOBS.tenant,
        _JOBS.user_pk,
        _USERS.user_id,
        _JOBS.status,
        _JOBS.seq,
        _JOBS.created_at,
        _JOBS.result,
        _JOBS.error_code,
        _JOBS.error_detail,
    )
    .outerjoin(_table(User), _USERS.pk == _JOBS.user_pk)
    .where(_JOBS.id.in_(bindparam("ids", expanding=True, type_=String)))
)


@dataclass(frozen=True)
class Held:
    """A person who is not erased before this transaction ends, and the newest profile versions."""

    pk: str
    found: Found


@dataclass(frozen=True)
class JobSeen:
    """What clients see of a job, and whose it is: a tenant's, and one of its people's if any."""

    id: str
    tenant: str
    user_pk: str | None
    user_id: str | None
    status: JobStatus
    seq: int
    created_at: datetime
    result: dict[str, Any] | None = None
    error_code: str | None = None
    error_detail: str | None = None


@dataclass(frozen=True)
class Subject:
    """A person whose taste a job uses, by the profile version pinned for it, if any."""

    user_pk: str
    profile_pk: str | None
    weight: float


@dataclass(frozen=True)
class NewGeneration:
    """A job for pictures, to be queued."""

    tenant: str
    user_pk: str | None
    user_id: str | None
    turn: int
    request: dict[str, Any]
    subjects: tuple[Subject, ...] = ()
    id: str = field(default_factory=new_id)

    def as_queued(self, at: datetime) -> JobSeen:
        """What clients see of it from now on."""
        return JobSeen(self.id, self.tenant, self.user_pk, self.user_id, "queued", 1, at)

    @property
    def row(self) -> dict[str, Any]:
        """The job's row, as far as it differs from others'."""
        about = {"tenant": self.tenant, "user_pk": self.user_pk, "turn": self.turn}
        return {"id": self.id, "request": self.request, **about}

    @property
    def subject_rows(self) -> list[dict[str, Any]]:
        """The rows of its subjects, in the order of the request."""
        return [
            {"job_id": self.id, "position": position, **vars(subject)}
            for position, subject in enumerate(self.subjects)
        ]


ACTIVE_ADAPTER = (
    select(AdapterActivation.version)
    .order_by(AdapterActivation.pk.desc())
    .limit(1)
    .scalar_subquery()
)
"""The version of the adapter in service, for an INSERT to write: it costs no query of its own.

The row must be read again to know it.
"""

_jobs = GivenJobs.as_table("jobs")
_ALIKE = {
    "kind": literal("generate"),
    "status": literal("queued"),
    "seq": literal(1),
    "attempt": literal(0),
    "losses": literal(0),
    "priority": bindparam("priority", type_=Integer),
    "created_at": present(),
    "expires_at": in_seconds(bindparam("expiry_s", type_=Float)),
    "adapter_version": ACTIVE_ADAPTER,
}
_ADD_GENERATIONS = (
    insert(_table(Job))
    .from_select(
        [*GivenJobs.fields, *_ALIKE], select(*_jobs.c, *_ALIKE.values()), include_defaults=False
    )
    .returning(_JOBS.id, _JOBS.created_at)
)
_subjects = GivenSubjects.as_table("subjects")
_ADD_SUBJECTS = insert(_table(JobSubject)).from_select(
    list(GivenSubjects.fields), select(*_subjects.c)
)

_WORKER_IS_GONE_AFTER_S = 120.0


class Store:
    """All repositories over one session."""

    def __init__(self, session: AsyncSession, delivery: JobDelivery) -> None:
        self.session = session
        self.keys = Keys(session)
        self.users = Users(session)
        self.choices = Choices(session)
        self.profiles = Profiles(session)
        self.jobs = Jobs(session, delivery)
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
            found = await send(_HELD, {"people": _named(people), "since": since})
            waiting = await send(_CROWD, {"kind": kind, "owners": _named(owners)})
        held = {(row[0], row[1]): Held(row[2], Found(row[3], row[4])) for row in await found()}
        return held, _crowd(await waiting())

    async def alone(self, purpose: str) -> None:
        """Wait until no other transaction of any process is at this; hold it until the end."""
        if not _is_sqlite(self.session):
            await self.session.execute(select(func.pg_advisory_xact_lock(_lock_number(purpose))))

    async def alone_now(self, purpose: str) -> bool:
        """Hold this until the end of the transaction; false when another transaction does.

        On SQLite there is no other transaction.
        """
        if _is_sqlite(self.session):
            return True
        lock = select(func.pg_try_advisory_xact_lock(_lock_number(purpose)))
        return bool(await self.session.scalar(lock))


def _is_sqlite(session: AsyncSession) -> bool:
    return session.get_bind().dialect.name == "sqlite"


def _lock_number(purpose: str) -> int:
    """64 bits, signed, as advisory locks are named."""
    digest = hashlib.sha256(f"ppd {purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


class _Repository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def _changed(self, statement: Executable) -> int:
        result = await self._session.execute(statement)
        assert isinstance(result, CursorResult)
        return result.rowcount


class Keys(_Repository):
    """API keys."""

    async def active(self, key_sha256s: Collection[str]) -> dict[str, ApiKey]:
        """Those of these keys that were not revoked, by their hashes."""
        these = ApiKey.key_sha256.in_(key_sha256s)
        rows = await self._session.scalars(select(ApiKey).where(these, ApiKey.revoked_at.is_(None)))
        return {row.key_sha256: row for row in rows}

    async def add(self, tenant: str, name: str, key_sha256: str, scope: KeyScope) -> ApiKey:
        """Store a new key's hash."""
        row = ApiKey(tenant=tenant, name=name, key_sha256=key_sha256, scope=scope)
        self._session.add(row)
        await self._session.flush()
        return row

    async def get(self, pk: str) -> ApiKey | None:
        """The key of this id, revoked or not."""
        return await self._session.get(ApiKey, pk)

    async def all(self) -> Sequence[ApiKey]:
        """Every key, oldest first."""
        return (await self._session.scalars(select(ApiKey).order_by(ApiKey.created_at))).all()

    async def revoke(self, pk: str) -> bool:
        """Revoke a key; false when there is no such key in use."""
        statement = update(ApiKey).where(ApiKey.pk == pk, ApiKey.revoked_at.is_(None))
        return bool(await self._changed(statement.values(revoked_at=present())))


class Users(_Repository):
    """People."""

    async def find(self, tenant: str, user_id: str) -> User | None:
        """The tenant's user of this id."""
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
        """The user, whose answers, versions and uploads only this transaction changes now."""
        user = await self._locked(tenant, user_id, key_share=True)
        return user and _seen_now(user)

    async def several_alone(self, pks: Collection[str]) -> dict[str, str]:
        """Those of these people who are there, alone, with their tenants. For one who has none."""
        rows = await self._session.execute(
            select(User.pk, User.tenant)
            .where(User.pk.in_(pks))
            .order_by(User.user_id)
            .with_for_update(key_share=True)
        )
        return {row.pk: row.tenant for row in rows}

    async def _locked(
        self, tenant: str, user_id: str, *, read: bool = False, key_share: bool = False
    ) -> User | None:
        user: User | None = await self._session.scalar(
            select(User)
            .where(User.tenant == tenant, User.user_id == user_id)
            .with_for_update(read=read, key_share=key_share)
            .execution_options(**_FRESH)
        )
        return user

    async def get_or_create(self, tenant: str, user_id: str, *, alone: bool = False) -> User:
        """The user, held (or held alone), made now on first use. Needs a write transaction.

        Who needs several people asks for them in the order of their user ids.
        """
        find = self.alone if alone else self.hold
        while True:
            user = await find(tenant, user_id)
            if user is not None:
                return _seen_now(user)
            insert = _insert_user(self._session).values(tenant=tenant, user_id=user_id)
            made: User | None = await self._session.scalar(
                insert.on_conflict_do_nothing().returning(User)
            )
            if made is not None:
                return made
            # Somebody else made this user meanwhile, and may have erased it again.

    async def user_id(self, pk: str) -> str | None:
        """The tenant's own name for this user."""
        return await self._session.scalar(select(User.user_id).where(User.pk == pk))

    async def erase(
        self, tenant: str, user_id: str, unseen_for: timedelta | None = None
    ) -> "Erased | None":
        """Delete the user, what hangs on it, and every job and picture that used its taste.

        The pictures' bytes are noted to be deleted, and the user as erased, in the same commit.
        None when there is no such user, or one who was seen (where it is asked for how long not).
        """
        user = await self._locked(tenant, user_id)
        if user is None:
            return None
        if unseen_for is not None:
            seen_at = user.seen_at or user.created_at
            if seen_at >= datetime.now(UTC) - unseen_for:
                return None
        theirs = _jobs_about(user.pk)
        jobs = (
            await self._session.execute(
                select(Job.id, Job.status)
                .where(Job.id.in_(theirs))
                .order_by(Job.id)
                .with_for_update(of=Job)
            )
        ).all()
        images = (
            await self._session.scalars(select(Image.key).where(_pictures_about(user.pk)))
        ).all()
        await Tombstones(self._session).add(user)
        await ImageDeletions(self._session).note(_pictures_about(user.pk))
        choices = await self._session.scalar(
            select(func.count()).select_from(Choice).where(Choice.user_pk == user.pk)
        )
        profiles = await self._session.scalar(
            select(func.count()).select_from(Profile).where(Profile.user_pk == user.pk)
        )
        await self._session.execute(delete(Job).where(Job.id.in_(theirs)))
        await self._session.execute(delete(User).where(User.pk == user.pk))
        return Erased(
            user_pk=user.pk,
            job_ids=[job_id for job_id, _ in jobs],
            running=[job_id for job_id, status in jobs if status == "running"],
            image_keys=list(images),
            choices=choices or 0,
            profiles=profiles or 0,
        )


def _seen_now(user: User) -> User:
    if user.seen_at is None or user.seen_at < datetime.now(UTC) - SEEN_TO:
        user.seen_at = datetime.now(UTC)
    return user


def _insert_user(session: AsyncSession) -> postgresql.Insert | sqlite.Insert:
    return sqlite.insert(User) if _is_sqlite(session) else postgresql.insert(User)


def _jobs_about(user_pk: str) -> Select[str]:
    """The ids of a user's jobs and of those that used the user's taste, as a subquery.

    A subquery, since one statement takes 32,766 values on SQLite and people may have more jobs.
    """
    uses = select(JobSubject.job_id).where(JobSubject.user_pk == user_pk)
    return select(Job.id).where(or_(Job.user_pk == user_pk, Job.id.in_(uses)))


def _pictures_about(user_pk: str) -> ColumnElement[bool]:
    return or_(Image.user_pk == user_pk, Image.job_id.in_(_jobs_about(user_pk)))


@dataclass(frozen=True)
class Erased:
    """Who and what went: the ids of jobs, the keys of pictures, and counts."""

    user_pk: str
    job_ids: list[str]
    running: list[str]
    image_keys: list[str]
    choices: int
    profiles: int


class Choices(_Repository):
    """Answers to pairs."""

    async def of(self, user_pk: str) -> Sequence[Choice]:
        """All answers, oldest first."""
        return (
            await self._session.scalars(
                select(Choice).where(Choice.user_pk == user_pk).order_by(Choice.pk)
            )
        ).all()

    async def latest_decided(self, user_pk: str, count: int) -> list[Choice]:
        """The newest answers that are not ties, oldest of them first."""
        rows = await self._session.scalars(
            select(Choice)
            .where(Choice.user_pk == user_pk, Choice.preferred.is_not(None))
            .order_by(Choice.pk.desc())
            .limit(count)
        )
        return list(rows)[::-1]

    async def counts(self, user_pk: str) -> tuple[int, int]:
        """How many answers there are, and how many of them are not ties."""
        row = (
            await self._session.execute(
                select(func.count(), func.count(Choice.preferred)).where(Choice.user_pk == user_pk)
            )
        ).one()
        return int(row[0]), int(row[1])

    async def put(self, choice: Choice) -> None:
        """Store an answer; one to the same pool pair takes the place of the earlier one.

        Needs the user alone.
        """
        if choice.pair_id is not None:
            await self._session.execute(
                delete(Choice).where(
                    Choice.user_pk == choice.user_pk, Choice.pair_id == choice.pair_id
                )
            )
        self._session.add(choice)
        await self._session.flush()


class Profiles(_Repository):
    """Versions of profiles."""

    async def of(self, user_pk: str) -> Sequence[Profile]:
        """All versions, oldest first."""
        return (
            await self._session.scalars(
                select(Profile).where(Profile.user_pk == user_pk).order_by(Profile.version)
            )
        ).all()

    async def get(self, pk: str) -> Profile | None:
        """One version."""
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
        return await self._session.scalar(statement)

    async def standing(self, user_pk: str) -> Profile | None:
        """The newest version that was not superseded."""
        return await self._session.scalar(
            select(Profile)
            .where(Profile.user_pk == user_pk, Profile.status != "superseded")
            .order_by(Profile.version.desc())
            .limit(1)
        )

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
        return profile

    async def finish(self, pk: str, status: str, **values: Any) -> bool:
        """End the encoding of a version; false when it is not being encoded any more."""
        statement = update(Profile).where(Profile.pk == pk, Profile.status == "encoding")
        return bool(await self._changed(statement.values(status=status, **values)))

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
        return list(await self._session.scalars(statement.execution_options(**_FRESH)))


class Jobs(_Repository):
    """Jobs and their only legal ways from state to state."""

    def __init__(self, session: AsyncSession, delivery: JobDelivery) -> None:
        super().__init__(session)
        self._delivery = delivery

    async def get(self, job_id: str, *, lock: bool = False) -> Job | None:
        """One job; with `lock` nobody else changes it until the end."""
        return await self._session.get(Job, job_id, with_for_update=lock or None)

    async def state(self, job_id: str) -> tuple[JobStatus, int] | None:
        """A job's status and seq, and nothing else of it."""
        row = (
            await self._session.execute(select(Job.status, Job.seq).where(Job.id == job_id))
        ).one_or_none()
        return (row[0], row[1]) if row is not None else None  # type: ignore[return-value]

    async def find(self, tenant: str, job_id: str, *, lock: bool = False) -> Job | None:
        """The tenant's job of this id; with `lock` nobody else changes it until the end."""
        if not _ID.fullmatch(job_id):  # PostgreSQL takes not every text
            return None
        statement = _THE_JOB_LOCKED if lock else _THE_JOB
        return await self._session.scalar(statement, {"job_id": job_id, "tenant": tenant})

    async def add(self, job: Job, subjects: Sequence[JobSubject] = ()) -> Job:
        """Queue a job."""
        job.id = job.id or new_id()
        for subject in subjects:
            subject.job_id = job.id
        self._session.add_all([job, *subjects])
        await self._session.flush()
        await self._delivery.enqueue(self._session, job.kind, 1)
        return job

    async def subjects(self, job_id: str) -> Sequence[JobSubject]:
        """Whose taste the job uses, in the order of the request."""
        return (
            await self._session.scalars(
                select(JobSubject).where(JobSubject.job_id == job_id).order_by(JobSubject.position)
            )
        ).all()

    async def queued(self, kind: str, tenant: str | None = None, user_pk: str | None = None) -> int:
        """How many jobs of a kind wait (of a tenant, of a user)."""
        statement = select(func.count()).where(Job.status == "queued", Job.kind == kind)
        if tenant is not None:
            statement = statement.where(Job.tenant == tenant)
        if user_pk is not None:
            statement = statement.where(Job.user_pk == user_pk)
        return await self._session.scalar(statement) or 0

    async def crowd(self, kind: str, owners: Collection[Person]) -> Crowd:
        """Who waits for jobs of a kind, as these people and any tenant come to it."""
        given = {"kind": kind, "owners": _named(owners)}
        return _crowd((await self._session.execute(_CROWD, given)).all())

    async def present_turn(self) -> int:
        """The turn that is being served: that of what runs, else of what comes next."""
        return present_turn(*(await self._session.execute(_TURNS)).one())

    async def add_generations(
        self, new: Sequence[NewGeneration], *, priority: int, expiry_s: float
    ) -> list[JobSeen]:
        """Queue jobs, each with the adapter that is in service when its row is written."""
        if not new:
            return []
        given = {
            "jobs": as_text(job.row for job in new),
            "priority": priority,
            "expiry_s": expiry_s,
        }
        subjects = as_text(row for job in new for row in job.subject_rows)
        async with pipeline(self._session) as send:
            rows = await send(_ADD_GENERATIONS, given)
            await send(_ADD_SUBJECTS, {"subjects": subjects})
            await self._delivery.enqueue(self._session, "generate", len(new))
        made = {row[0]: row[1].astimezone(UTC) for row in await rows()}
        return [job.as_queued(made[job.id]) for job in new]

    async def seen(self, ids: Collection[str]) -> dict[str, JobSeen]:
        """What clients see of those of these jobs that there are."""
        known = [job_id for job_id in ids if _ID.fullmatch(job_id)]  # PostgreSQL takes no NUL
        rows = await self._session.execute(_SEEN, {"ids": known})
        return {row.id: JobSeen(**row._mapping) for row in rows}

    async def of_profile(self, profile_pk: str) -> Job | None:
        """The job that encodes this profile version."""
        return await self._session.scalar(select(Job).where(Job.profile_pk == profile_pk))

    async def ids_of_user(self, user_pk: str) -> list[str]:
        """All of a user's jobs, and the blends that used the user's taste, oldest first."""
        about = Job.id.in_(_jobs_about(user_pk))
        oldest_first = select(Job.id).where(about).order_by(Job.created_at, Job.id)
        return list(await self._session.scalars(oldest_first))

    async def by_id(self, ids: Sequence[str]) -> dict[str, Job]:
        """These few hundred jobs."""
        rows = await self._session.scalars(select(Job).where(Job.id.in_(ids)))
        return {row.id: row for row in rows}

    async def uses_of(
        self, user_pk: str, ids: Sequence[str]
    ) -> Sequence[tuple[str, float, int | None]]:
        """How these jobs used the user's taste: job, weight, and the pinned profile version."""
        rows = await self._session.execute(
            select(JobSubject.job_id, JobSubject.weight, Profile.version)
            .outerjoin(Profile, Profile.pk == JobSubject.profile_pk)
            .where(JobSubject.user_pk == user_pk, JobSubject.job_id.in_(ids))
            .order_by(JobSubject.job_id, JobSubject.position)
        )
        return [(row[0], row[1], row[2]) for row in rows]

    async def waiting_encode(self, user_pk: str) -> Sequence[Job]:
        """Encode jobs of a user that no worker has begun, nor begins before the end."""
        return (
            await self._session.scalars(
                select(Job)
                .where(Job.user_pk == user_pk, Job.kind == "encode", Job.status == "queued")
                .order_by(Job.id)
                .with_for_update()
                .execution_options(**_FRESH)
            )
        ).all()

    async def claim(
        self,
        kinds: Collection[str],
        worker_id: str,
        lease_s: float,
        losses_below: int | None = None,
    ) -> Job | None:
        """Take the next job of these kinds: by turn, in a turn encodings first, then by age.

        Two workers never take the same: a row that one has its hand on is passed by.
        `losses_below` leaves those out that have lost so many workers already.
        """
        fits = [] if losses_below is None else [Job.losses < losses_below]
        following = (
            select(Job.id)
            .where(
                Job.status == "queued",
                Job.kind.in_(kinds),
                or_(Job.expires_at.is_(None), Job.expires_at > present()),
                *fits,
            )
            .order_by(Job.turn, Job.priority, Job.created_at, Job.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        return await self._session.scalar(
            update(Job)
            .where(Job.id == following)
            .values(
                status="running",
                attempt=Job.attempt + 1,
                seq=(Job.attempt + 1) * SEQ_PER_ATTEMPT + first_seq(0),
                started_at=present(),
                worker_id=worker_id,
                lease_until=in_seconds(lease_s),
            )
            .returning(Job)
            .execution_options(synchronize_session=False, **_FRESH)
        )

    async def put_tickets_out(self, kind: str, out: int) -> None:
        """Tickets for those waiting jobs of a kind that have none, when so many are out."""
        await self._delivery.enqueue(self._session, kind, await self.queued(kind) - out)

    async def put_ticket_back(self, kind: str) -> None:
        """Another ticket of a kind, for one that was spent on nothing of it, if jobs of it wait."""
        if await self.queued(kind):
            await self._delivery.enqueue(self._session, kind, 1)

    async def renew(
        self, held: Collection[tuple[str, int]], lease_s: float
    ) -> set[tuple[str, int]]:
        """Hold on to running jobs, each an id and an attempt; gives those that are still ours."""
        ours = or_(*((Job.id == job_id) & (Job.attempt == attempt) for job_id, attempt in held))
        in_turn = select(Job.id).where(ours).order_by(Job.id).with_for_update()
        await self._session.execute(in_turn)
        kept = await self._session.execute(
            update(Job)
            .where(Job.status == "running", ours)
            .values(lease_until=in_seconds(lease_s))
            .returning(Job.id, Job.attempt)
            .execution_options(synchronize_session=False)
        )
        return {(job_id, attempt) for job_id, attempt in kept}

    async def finish(
        self,
        job_id: str,
        attempt: int,
        status: JobStatus,
        *,
        result: dict[str, Any] | None = None,
        error: tuple[str, str] | None = None,
    ) -> bool:
        """End a running job; false when this attempt is not the current one any more."""
        code, detail = error or (None, None)
        statement = _fenced(job_id, attempt).values(
            status=status,
            seq=end_seq(attempt, 0),
            result=result,
            error_code=code,
            error_detail=detail,
            finished_at=present(),
            lease_until=None,
        )
        return bool(await self._changed(statement))

    async def release(self, job: Job) -> None:
        """Queue a running job again, because its worker stops."""
        again = _fenced(job.id, job.attempt).values(
            status="queued", seq=requeued_seq(job.attempt), lease_until=None
        )
        if await self._changed(again):
            await self._delivery.enqueue(self._session, job.kind, 1)

    async def cancel(self, job: Job) -> bool:
        """End a job that has not ended; false when it has. Needs the job locked."""
        statement = (
            update(Job)
            .where(Job.id == job.id, Job.status.in_(("queued", "running")))
            .values(
                status="canceled",
                seq=end_seq(job.attempt, job.seq),
                finished_at=present(),
                lease_until=None,
            )
        )
        return bool(await self._changed(statement))

    async def requeue_orphans(
        self, max_losses: int, *, leased_too: bool = False, but: Collection[str] = ()
    ) -> tuple[list[Job], list[Job]]:
        """Queue again what a lost worker ran; what has lost too many fails.

        Takes jobs whose lease has ended, and with `leased_too` (no worker may run then) all that
        run, but never those of `but`. A row that somebody has in hand (another sweep, an end, a
        renewal) is left to them. Gives the jobs queued again and those that failed.
        """
        orphan = [Job.status == "running"]
        if not leased_too:
            orphan.append(Job.lease_until < present())
        if but:
            orphan.append(Job.id.not_in(but))
        spent: list[Job] = []
        again: list[Job] = []
        for job in await self._in_nobodys_hand(orphan):
            job.lease_until = None
            job.losses += 1
            if job.losses >= max_losses:
                job.status, job.error_code = "failed", "worker_crash"
                job.seq = end_seq(job.attempt, job.seq)
                job.finished_at = present()
                spent.append(job)
            else:
                job.status, job.seq = "queued", requeued_seq(job.attempt)
                again.append(job)
        await self._session.flush()
        for kind, count in Counter(job.kind for job in again).items():
            await self._delivery.enqueue(self._session, kind, count)
        return again, spent

    async def page(self, status: JobStatus | None, kind: str | None, limit: int) -> Sequence[Job]:
        """Jobs of every tenant, newest first (in this state, of this kind)."""
        statement = select(Job).order_by(Job.created_at.desc(), Job.id).limit(limit)
        if status is not None:
            statement = statement.where(Job.status == status)
        if kind is not None:
            statement = statement.where(Job.kind == kind)
        return (await self._session.scalars(statement)).all()

    async def requeue(self, job: Job, expires_at: datetime | None) -> None:
        """Queue a failed or expired job again, as a further attempt. Its `seq` goes on growing."""
        assert job.status in ("failed", "expired"), job.status
        job.seq = max(requeued_seq(job.attempt), job.seq + 1)
        if job.seq >= first_seq(job.attempt + 1):
            job.attempt += 1  # it expired unbegun time and again: a new block of numbers
        job.status, job.expires_at = "queued", expires_at
        job.error_code = job.error_detail = None
        job.losses = 0
        job.started_at = job.finished_at = None
        await self._session.flush()
        await self._delivery.enqueue(self._session, job.kind, 1)

    async def expire(self) -> list[Job]:
        """End jobs that waited too long; one that somebody has in hand is left to them."""
        late = await self._in_nobodys_hand([Job.status == "queued", Job.expires_at < present()])
        for job in late:
            job.status, job.error_code = "expired", "expired"
            job.finished_at = present()
            job.seq = end_seq(job.attempt, job.seq)
        await self._session.flush()
        return list(late)

    async def _in_nobodys_hand(self, which: Sequence[ColumnElement[bool]]) -> Sequence[Job]:
        """Jobs, locked until the end, without those that another transaction has locked."""
        return (
            await self._session.scalars(
                select(Job)
                .where(*which)
                .order_by(Job.id)
                .with_for_update(skip_locked=True)
                .execution_options(**_FRESH)
            )
        ).all()


def _named(people: Collection[Person]) -> str:
    return as_text({"tenant": tenant, "user_id": user_id} for tenant, user_id in people)


def _crowd(rows: Sequence[Any]) -> Crowd:
    crowd = Crowd()
    for tenant, user_pk, of_nobody, waiting, last, running, coming in rows:
        crowd.waiting += waiting
        crowd.of_tenant[tenant] += waiting
        crowd.running = max(_not_none(crowd.running, running), default=None)
        crowd.coming = min(_not_none(crowd.coming, coming), default=None)
        if user_pk is not None or of_nobody:
            crowd.of_owner[tenant, user_pk] = waiting
            if last is not None:
                crowd.last[tenant, user_pk] = last
    return crowd


def _not_none(*values: int | None) -> list[int]:
    return [value for value in values if value is not None]


def _fenced(job_id: str, attempt: int) -> Any:
    return update(Job).where(Job.id == job_id, Job.attempt == attempt, Job.status == "running")


class Images(_Repository):
    """Stored pictures."""

    async def find(self, tenant: str, image_id: str) -> Image | None:
        """The tenant's picture of this id."""
        if not _ID.fullmatch(image_id):  # PostgreSQL takes not every text
            return None
        return await self._session.scalar(
            select(Image).where(Image.id == image_id, Image.tenant == tenant)
        )

    async def add(self, images: Sequence[Image]) -> None:
        """Store rows of pictures whose bytes are already in the image store."""
        self._session.add_all(images)
        await self._session.flush()

    async def by_id(self, ids: Sequence[str]) -> dict[str, Image]:
        """These pictures."""
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

    async def ids_of_user(self, user_pk: str) -> list[str]:
        """All pictures of a user, those of blends too, oldest first."""
        about = _pictures_about(user_pk)
        oldest_first = select(Image.id).where(about).order_by(Image.created_at, Image.id)
        return list(await self._session.scalars(oldest_first))

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

    async def known(self, keys: Sequence[str]) -> set[str]:
        """Those of a job's or a request's few keys that a row points to."""
        return set(await self._session.scalars(select(Image.key).where(Image.key.in_(keys))))


class Idempotency(_Repository):
    """What earlier POSTs led to."""

    async def find(self, caller: str, key: str) -> IdempotencyKey | None:
        """The record of a caller's key."""
        return await self._session.get(IdempotencyKey, (caller, key))

    async def of_user(self, user_pk: str) -> Sequence[IdempotencyKey]:
        """Those of requests about a user; they are kept for two days."""
        theirs = IdempotencyKey.user_pk == user_pk
        oldest_first = select(IdempotencyKey).where(theirs).order_by(IdempotencyKey.created_at)
        return (await self._session.scalars(oldest_first)).all()

    async def add(self, record: IdempotencyKey) -> None:
        """Remember."""
        self._session.add(record)
        await self._session.flush()

    async def prune(self, older_than: timedelta) -> int:
        """Forget old ones."""
        return await self._changed(
            delete(IdempotencyKey).where(
                IdempotencyKey.created_at < in_seconds(-older_than.total_seconds())
            )
        )


class Workers(_Repository):
    """The processes that run jobs, as they last said."""

    async def put(self, row: WorkerRow) -> None:
        """Say how one is, now."""
        row.seen_at = present()
        await self._session.merge(row)
        await self._session.flush()

    async def seen(self, within_s: float) -> Sequence[WorkerRow]:
        """Those that spoke within so many seconds, oldest first."""
        rows = await self._session.scalars(
            select(WorkerRow)
            .where(WorkerRow.seen_at >= in_seconds(-within_s))
            .order_by(WorkerRow.started_at)
        )
        return rows.all()

    async def remove(self, worker_id: str) -> None:
        """One has gone."""
        await self._session.execute(delete(WorkerRow).where(WorkerRow.id == worker_id))

    async def prune(self, silent_for: timedelta) -> int:
        """Forget those that have not spoken for so long."""
        since = in_seconds(-silent_for.total_seconds())
        return await self._changed(delete(WorkerRow).where(WorkerRow.seen_at < since))


class Adapters(_Repository):
    """Adapters that are kept, and which of them is in service; None is the one shipped."""

    async def get(self, version: str) -> Adapter | None:
        """A kept adapter."""
        return await self._session.get(Adapter, version)

    async def all(self) -> Sequence[Adapter]:
        """Every kept adapter, oldest first."""
        statement = select(Adapter).order_by(Adapter.created_at, Adapter.version)
        return (await self._session.scalars(statement)).all()

    async def add(self, adapter: Adapter) -> Adapter:
        """Keep an adapter whose bytes are in the image store; gives the row of an earlier time."""
        kept = await self.get(adapter.version)
        if kept is not None:
            return kept
        try:
            async with self._session.begin_nested():
                self._session.add(adapter)
        except IntegrityError:  # another process has kept it meanwhile
            return await self._session.get_one(Adapter, adapter.version)
        return adapter

    async def active(self) -> str | None:
        """The version in service."""
        return await self._session.scalar(select(ACTIVE_ADAPTER))

    async def was_ever_one(self) -> bool:
        """Whether any adapter was ever put into service, or taken out of it."""
        return bool(await self._session.scalar(select(func.count(AdapterActivation.pk))))

    async def activate(self, version: str) -> bool:
        """Serve a kept adapter from the next job on; false when it is not kept."""
        if await self._session.get(Adapter, version, with_for_update=True) is None:
            return False
        if await self.active() != version:
            await self._serve(version, back_to=None)
        return True

    async def deactivate(self) -> bool:
        """Serve the shipped adapter from the next job on; false when it is in service already."""
        if await self.active() is None:
            return False
        await self._serve(None, back_to=None)
        return True

    async def rollback(self) -> AdapterActivation | None:
        """Serve what was served before, and done again what was before that; None at the end."""
        newest = await self._newest_before(None)
        place = 0 if newest is None else _place(newest)
        while place and newest is not None:
            earlier = await self._newest_before(place)
            place = 0 if earlier is None else _place(earlier)
            version = None if earlier is None else earlier.version
            if version != newest.version:
                return await self._serve(version, back_to=place)
        return None

    async def remove(self, version: str) -> str:
        """Forget an adapter; gives the key of its bytes.

        Raises ValueError for one that is not kept, is in service, or is what an unfinished job is
        pinned to.
        """
        adapter = await self._session.get(Adapter, version, with_for_update=True)
        if adapter is None:
            raise ValueError(f"no adapter {version} is kept here")
        if self._session.get_bind().dialect.name == "postgresql":  # jobs on their way are seen
            await self._session.execute(text("LOCK TABLE jobs IN SHARE MODE"))
        if await self.active() == version:
            raise ValueError(f"adapter {version} is in service: activate another one first")
        pinned = await self._session.scalar(
            select(func.count()).where(
                Job.adapter_version == version, Job.status.in_(("queued", "running"))
            )
        )
        if pinned:
            raise ValueError(f"{pinned} unfinished jobs are pinned to adapter {version}")
        await self._changed(delete(AdapterActivation).where(AdapterActivation.version == version))
        await self._session.delete(adapter)
        await self._session.flush()
        return adapter.key

    async def pin_unfinished(self, version: str) -> None:
        """Pin every unfinished job for pictures that names no adapter."""
        statement = update(Job).where(
            Job.kind == "generate",
            Job.status.in_(("queued", "running")),
            Job.adapter_version.is_(None),
        )
        await self._changed(statement.values(adapter_version=version))

    async def misfit(self, adapter: Adapter) -> str | None:
        """Why a worker that was seen lately could not use it; None when none says so."""
        workers = await self._session.scalars(
            select(WorkerRow).where(WorkerRow.seen_at > in_seconds(-_WORKER_IS_GONE_AFTER_S))
        )
        for worker in workers:
            base_model = (worker.model or "").rpartition("@")[0]
            for what, its, running in (
                ("base model", adapter.base_model, base_model),
                ("user encoder", adapter.encoder_id, worker.encoder_version),
            ):
                if running and its != running:
                    return misfit_text(adapter.version, what, its, running)
        return None

    async def _newest_before(self, place: int | None) -> AdapterActivation | None:
        statement = select(AdapterActivation).order_by(AdapterActivation.pk.desc()).limit(1)
        if place is not None:
            statement = statement.where(AdapterActivation.pk < place)
        return await self._session.scalar(statement)

    async def _serve(self, version: str | None, *, back_to: int | None) -> AdapterActivation:
        row = AdapterActivation(version=version, back_to=back_to)
        self._session.add(row)
        await self._session.flush()
        return row


def _place(activation: AdapterActivation) -> int:
    """Where in the history of activations this one leaves the service."""
    return activation.pk if activation.back_to is None else activation.back_to


def misfit_text(version: str, what: str, found: str, expected: str) -> str:
    """A refusal with both ids; another encoder or base model needs other workers."""
    return (
        f"adapter {version}: {what} is {found!r}, expected {expected!r}. An adapter changes while "
        f"the service runs; another {what} needs a restart with it"
    )
