"""Every query of the service, one class per noun, together in `Store` over one transaction."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Executable,
    Select,
    case,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from service.core.auth import KeyScope
from service.core.messages import JobStatus, end_seq, first_seq, requeued_seq
from service.infra.delivery import JobDelivery
from service.infra.tables import (
    ApiKey,
    Choice,
    IdempotencyKey,
    Image,
    Job,
    JobSubject,
    Profile,
    User,
    UtcDateTime,
    WorkerRow,
    now,
)


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

    async def alone(self, what: str) -> None:
        """Go on alone of all processes that say the same, until the transaction ends.

        On SQLite whoever writes is alone anyway.
        """
        if self.session.get_bind().dialect.name == "postgresql":
            await self.session.execute(select(func.pg_advisory_xact_lock(func.hashtext(what))))


class _Repository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def _changed(self, statement: Executable) -> int:
        result = await self._session.execute(statement)
        assert isinstance(result, CursorResult)
        return result.rowcount

    async def _database_now(self) -> datetime:
        """The present by the clock that all processes share: the database's, else this machine's.

        Leases are compared between machines, whose own clocks may differ.
        """
        if self._session.get_bind().dialect.name == "sqlite":
            return now()
        at = await self._session.scalar(select(func.clock_timestamp(type_=UtcDateTime)))
        assert at is not None
        return at


class Keys(_Repository):
    """API keys."""

    async def active(self, key_sha256: str) -> ApiKey | None:
        """A key that was not revoked."""
        return await self._session.scalar(
            select(ApiKey).where(ApiKey.key_sha256 == key_sha256, ApiKey.revoked_at.is_(None))
        )

    async def add(self, tenant: str, name: str, key_sha256: str, scope: KeyScope) -> ApiKey:
        """Store a new key's hash."""
        row = ApiKey(tenant=tenant, name=name, key_sha256=key_sha256, scope=scope)
        self._session.add(row)
        await self._session.flush()
        return row

    async def all(self) -> Sequence[ApiKey]:
        """Every key, oldest first."""
        return (await self._session.scalars(select(ApiKey).order_by(ApiKey.created_at))).all()

    async def revoke(self, pk: str) -> bool:
        """Revoke a key; false when there is no such key in use."""
        statement = update(ApiKey).where(ApiKey.pk == pk, ApiKey.revoked_at.is_(None))
        return bool(await self._changed(statement.values(revoked_at=now())))


class Users(_Repository):
    """People."""

    async def find(self, tenant: str, user_id: str) -> User | None:
        """The tenant's user of this id."""
        return await self._session.scalar(
            select(User).where(User.tenant == tenant, User.user_id == user_id)
        )

    async def get_or_create(self, tenant: str, user_id: str) -> User:
        """The user, made now on first use. Needs a write transaction."""
        user = await self.find(tenant, user_id)
        if user is None:
            user = User(tenant=tenant, user_id=user_id)
            self._session.add(user)
            await self._session.flush()
        return user

    async def user_id(self, pk: str) -> str | None:
        """The tenant's own name for this user."""
        return await self._session.scalar(select(User.user_id).where(User.pk == pk))

    async def erase(self, user: User) -> "Erased":
        """Delete the user, what hangs on it, and every job and picture that used its taste."""
        theirs = _jobs_about(user.pk)
        jobs = (await self._session.scalars(theirs)).all()
        images = (
            await self._session.scalars(select(Image.key).where(_pictures_about(user.pk)))
        ).all()
        choices = await self._session.scalar(
            select(func.count()).select_from(Choice).where(Choice.user_pk == user.pk)
        )
        profiles = await self._session.scalar(
            select(func.count()).select_from(Profile).where(Profile.user_pk == user.pk)
        )
        await self._session.execute(delete(Job).where(Job.id.in_(theirs)))
        await self._session.execute(delete(User).where(User.pk == user.pk))
        return Erased(list(jobs), list(images), choices or 0, profiles or 0)


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
    """What went: the ids of jobs, the keys of pictures, and counts."""

    job_ids: list[str]
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
        """Store an answer; one to the same pool pair takes the place of the earlier one."""
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

    async def add(
        self, user_pk: str, source: str, choices: list[Any], seed: int, text: str | None
    ) -> Profile:
        """Begin the next version, to be encoded."""
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

    async def stale(self, encoder_version: str) -> list[Profile]:
        """The newest ready version of every user, where another encoder made it.

        Users with a version being encoded already are left out.
        """
        newest = (
            select(Profile.user_pk, func.max(Profile.version).label("version"))
            .where(Profile.status == "ready")
            .group_by(Profile.user_pk)
            .subquery()
        )
        pending = exists().where(Profile.user_pk == newest.c.user_pk, Profile.status == "encoding")
        rows = await self._session.scalars(
            select(Profile)
            .join(
                newest,
                (Profile.user_pk == newest.c.user_pk) & (Profile.version == newest.c.version),
            )
            .where(Profile.encoder_version != encoder_version, ~pending.correlate(newest))
        )
        return list(rows)


class Jobs(_Repository):
    """Jobs and their only legal ways from state to state."""

    def __init__(self, session: AsyncSession, delivery: JobDelivery) -> None:
        super().__init__(session)
        self._delivery = delivery

    async def get(self, job_id: str) -> Job | None:
        """One job."""
        return await self._session.get(Job, job_id)

    async def find(self, tenant: str, job_id: str) -> Job | None:
        """The tenant's job of this id."""
        return await self._session.scalar(select(Job).where(Job.id == job_id, Job.tenant == tenant))

    async def add(self, job: Job, subjects: Sequence[JobSubject] = ()) -> Job:
        """Queue a job."""
        self._session.add(job)
        await self._session.flush()
        for subject in subjects:
            subject.job_id = job.id
            self._session.add(subject)
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

    async def next_turn(self, kind: str, tenant: str, user_pk: str | None) -> int:
        """The turn of a person's next job of a kind: the present one, or the one after their last.

        Start-time fair queueing with jobs of equal cost: whoever has nothing in the queue comes in
        at the turn that is being served, and each further job one turn later. So people (and a
        tenant's jobs for nobody or for a blend, as one more) go round in turn.
        """
        theirs = [Job.tenant == tenant, Job.user_pk.is_(None)]
        if user_pk is not None:
            theirs = [Job.user_pk == user_pk]
        last = await self._session.scalar(
            select(func.max(Job.turn)).where(
                *theirs, Job.kind == kind, Job.status.in_(("queued", "running"))
            )
        )
        present = await self.present_turn()
        return present if last is None else max(present, last + 1)

    async def present_turn(self) -> int:
        """The turn that is being served: that of what runs, else of what comes next."""
        running = await self._session.scalar(
            select(func.max(Job.turn)).where(Job.status == "running")
        )
        coming = await self._session.scalar(
            select(func.min(Job.turn)).where(Job.status == "queued")
        )
        if running is None or coming is None:
            return running or coming or 0
        return max(running, coming - 1)  # what runs may be of an old turn, begun once more

    async def of_profile(self, profile_pk: str) -> Job | None:
        """The job that encodes this profile version."""
        return await self._session.scalar(select(Job).where(Job.profile_pk == profile_pk))

    async def of_user(self, user_pk: str) -> Sequence[Job]:
        """All jobs of a user, and the blends that used the user's taste, oldest first."""
        return (
            await self._session.scalars(
                select(Job).where(Job.id.in_(_jobs_about(user_pk))).order_by(Job.created_at, Job.id)
            )
        ).all()

    async def waiting_encode(self, user_pk: str) -> Sequence[Job]:
        """Encode jobs of a user that no worker has begun."""
        return (
            await self._session.scalars(
                select(Job).where(
                    Job.user_pk == user_pk, Job.kind == "encode", Job.status == "queued"
                )
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

        `losses_below` leaves those out that have lost so many workers already.
        """
        at = await self._database_now()
        fits = [Job.kind.in_(kinds), or_(Job.expires_at.is_(None), Job.expires_at > at)]
        if losses_below is not None:
            fits.append(Job.losses < losses_below)
        job = await self._session.scalar(
            select(Job)
            .where(Job.status == "queued", *fits)
            .order_by(Job.turn, Job.priority, Job.created_at, Job.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        if job is None:
            return None
        job.status = "running"
        job.attempt += 1
        job.seq = first_seq(job.attempt)
        job.started_at = at
        job.worker_id = worker_id
        job.lease_until = at + timedelta(seconds=lease_s)
        await self._session.flush()
        return job

    async def put_ticket_back(self, kind: str) -> None:
        """Another ticket of a kind, for one that was spent on nothing of it, if jobs of it wait."""
        if await self.queued(kind):
            await self._delivery.enqueue(self._session, kind, 1)

    async def renew(
        self, held: Collection[tuple[str, int]], lease_s: float
    ) -> set[tuple[str, int]]:
        """Hold on to running jobs, each an id and an attempt; gives those that are still ours."""
        ours = or_(*((Job.id == job_id) & (Job.attempt == attempt) for job_id, attempt in held))
        until = await self._database_now() + timedelta(seconds=lease_s)
        kept = await self._session.execute(
            update(Job)
            .where(Job.status == "running", ours)
            .values(lease_until=until)
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
            finished_at=now(),
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
        """End a job that has not ended; false when it has."""
        statement = (
            update(Job)
            .where(Job.id == job.id, Job.status.in_(("queued", "running")))
            .values(
                status="canceled",
                seq=end_seq(job.attempt, job.seq),
                finished_at=now(),
                lease_until=None,
            )
        )
        return bool(await self._changed(statement))

    async def requeue_orphans(
        self, max_losses: int, *, lease_ended: bool, running: Collection[str] = ()
    ) -> tuple[list[Job], list[Job]]:
        """Queue again what a lost worker ran; what has lost too many fails.

        Takes jobs whose lease has ended (all, without `lease_ended`: no worker may run then), but
        never those of `running`. Gives the jobs queued again and those that failed. Jobs that
        another process is ending, or sweeping, at this moment are left to it.
        """
        orphan = [Job.status == "running", Job.id.not_in(running)]
        if lease_ended:
            orphan.append(Job.lease_until < await self._database_now())
        orphans = await self._session.scalars(
            select(Job).where(*orphan).with_for_update(skip_locked=True)
        )
        again: list[Job] = []
        spent: list[Job] = []
        for job in orphans:
            job.losses += 1
            job.lease_until = None
            if job.losses < max_losses:
                job.status, job.seq = "queued", requeued_seq(job.attempt)
                again.append(job)
            else:
                job.status, job.error_code = "failed", "worker_crash"
                job.seq, job.finished_at = end_seq(job.attempt, job.seq), now()
                spent.append(job)
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
        """End jobs that waited too long."""
        late = (
            await self._session.scalars(
                select(Job)
                .where(Job.status == "queued", Job.expires_at < await self._database_now())
                .with_for_update(skip_locked=True)
            )
        ).all()
        for job in late:
            job.status, job.finished_at = "expired", now()
            job.seq = end_seq(job.attempt, job.seq)
            job.error_code = "expired"
        await self._session.flush()
        return list(late)


def _fenced(job_id: str, attempt: int) -> Any:
    return update(Job).where(Job.id == job_id, Job.attempt == attempt, Job.status == "running")


class Images(_Repository):
    """Stored pictures."""

    async def find(self, tenant: str, image_id: str) -> Image | None:
        """The tenant's picture of this id."""
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

    async def of(self, user_pk: str) -> Sequence[Image]:
        """All pictures of a user, those of blends too, oldest first."""
        return (
            await self._session.scalars(
                select(Image).where(_pictures_about(user_pk)).order_by(Image.created_at, Image.id)
            )
        ).all()

    async def uploads(self, user_pk: str) -> tuple[int, int]:
        """How many own pictures a user has sent, and their size in bytes."""
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

    async def keys(self) -> set[str]:
        """Every key that a row points to."""
        return set(await self._session.scalars(select(Image.key)))


class Idempotency(_Repository):
    """What earlier POSTs led to."""

    async def find(self, caller: str, key: str) -> IdempotencyKey | None:
        """The record of a caller's key."""
        return await self._session.get(IdempotencyKey, (caller, key))

    async def add(self, record: IdempotencyKey) -> None:
        """Remember."""
        self._session.add(record)
        await self._session.flush()

    async def prune(self, older_than: timedelta) -> int:
        """Forget old ones."""
        return await self._changed(
            delete(IdempotencyKey).where(IdempotencyKey.created_at < now() - older_than)
        )


class Workers(_Repository):
    """The processes that run jobs, as they last said."""

    async def put(self, row: WorkerRow) -> None:
        """Say how one is, now."""
        row.seen_at = await self._database_now()
        await self._session.merge(row)
        await self._session.flush()

    async def seen(self, within_s: float) -> Sequence[WorkerRow]:
        """Those that spoke within so many seconds, oldest first."""
        since = await self._database_now() - timedelta(seconds=within_s)
        rows = await self._session.scalars(
            select(WorkerRow).where(WorkerRow.seen_at >= since).order_by(WorkerRow.started_at)
        )
        return rows.all()

    async def remove(self, worker_id: str) -> None:
        """One has gone."""
        await self._session.execute(delete(WorkerRow).where(WorkerRow.id == worker_id))

    async def prune(self, silent_for: timedelta) -> int:
        """Forget those that have not spoken for so long."""
        before = await self._database_now() - silent_for
        return await self._changed(delete(WorkerRow).where(WorkerRow.seen_at < before))
