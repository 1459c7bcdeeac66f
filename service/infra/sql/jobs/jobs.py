"""Jobs: queued, found, counted, canceled, queued again."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from service.core.fairness import Crowd
from service.core.messages import JobStatus, end_seq, first_seq, requeued_seq
from service.infra.sql.clock import present
from service.infra.sql.delivery import JobDelivery
from service.infra.sql.jobs.crowd import CROWD, Person, crowd_of, named
from service.infra.sql.jobs.equal import EQUAL_RUNS, UNENDED_EQUAL
from service.infra.sql.jobs.generations import ADD_GENERATIONS, ADD_SUBJECTS, NewGeneration
from service.infra.sql.jobs.line import InLine, line
from service.infra.sql.jobs.seen import SEEN, JobSeen, asked, page_of_jobs, seen_by_id
from service.infra.sql.json_rows import as_text
from service.infra.sql.pipelines import pipeline
from service.infra.sql.repositories.base import FRESH, ID, Repository
from service.infra.sql.tables import Job, JobSubject, Profile, User

NOBODYS_AT_ONCE = 1000
"""So many jobs of nobody are erased by one request."""
_TENANT = bindparam("tenant", type_=String)
_THE_JOB = select(Job).where(Job.id == bindparam("job_id", type_=String), Job.tenant == _TENANT)
_THE_JOB_LOCKED = _THE_JOB.with_for_update().execution_options(**FRESH)


class Jobs(Repository):
    """Jobs, and what clients and operators do to them. What workers do is in `Claims`."""

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
        if not ID.fullmatch(job_id):  # PostgreSQL takes not every text
            return None
        statement = _THE_JOB_LOCKED if lock else _THE_JOB
        return await self._session.scalar(statement, {"job_id": job_id, "tenant": tenant})

    async def add(self, job: Job) -> Job:
        self._session.add(job)
        await self._session.flush()
        await self._delivery.enqueue(self._session, job.kind, 1)
        return job

    async def subjects(self, job_id: str) -> Sequence[JobSubject]:
        """Whose taste the job uses, in the order of the request."""
        of_job = select(JobSubject).where(JobSubject.job_id == job_id)
        return await self._all(of_job.order_by(JobSubject.position))

    async def queued(self, kind: str) -> int:
        """How many jobs of a kind wait."""
        waiting = select(func.count()).where(Job.status == "queued", Job.kind == kind)
        return await self._session.scalar(waiting) or 0

    async def crowd(self, kind: str, owners: Collection[Person]) -> Crowd:
        """Who waits for jobs of a kind, as these people and any tenant come to it."""
        given = {"kind": kind, "owners": named(owners)}
        return crowd_of((await self._session.execute(CROWD, given)).all())

    async def add_generations(
        self, new: Sequence[NewGeneration], *, priority: int, expiry_s: float
    ) -> list[JobSeen]:
        """Queue jobs, each with an adapter that is in service when its row is written."""
        if not new:
            return []
        given = {
            "jobs": as_text(job.row for job in new),
            "priority": priority,
            "expiry_s": expiry_s,
        }
        subjects = as_text(row for job in new for row in job.subject_rows)
        async with pipeline(self._session) as send:
            rows = await send(ADD_GENERATIONS, given)
            await send(ADD_SUBJECTS, {"subjects": subjects})
            await self._delivery.enqueue(self._session, "generate", len(new))
        made = {row[0]: row[1].astimezone(UTC) for row in await rows()}
        return [job.as_queued(made[job.id]) for job in new]

    async def seen_page(
        self, tenant: str, user_pk: str | None, before: tuple[datetime, str] | None, limit: int
    ) -> list[JobSeen]:
        """What clients see of a tenant's jobs (of one person's), newest first."""
        rows = await self._session.execute(page_of_jobs(tenant, user_pk, before, limit))
        return [JobSeen(**row._mapping) for row in rows]

    async def line(self) -> list[InLine]:
        """All that waits or runs, of everybody, in the order in which it is begun."""
        return await line(self._session)

    async def unended_of(self, user_pk: str) -> Sequence[Job]:
        """A person's jobs that wait or run, which nobody else changes until the end."""
        unended = Job.status.in_(("queued", "running"))
        return (
            await self._session.scalars(
                select(Job)
                .where(Job.user_pk == user_pk, unended)
                .order_by(Job.id)
                .with_for_update()
                .execution_options(**FRESH)
            )
        ).all()

    async def unended_in(self, taste_pk: str) -> Sequence[Job]:
        """Jobs of the taste's own person that wait or run in it or read its answers, locked."""
        own = (JobSubject.user_pk == taste_pk, JobSubject.shared.is_(False))
        reads = Job.profile_pk.in_(select(Profile.pk).where(Profile.user_pk == taste_pk))
        uses = Job.id.in_(select(JobSubject.job_id).where(*own))
        return await self._all(
            select(Job)
            .where(or_(reads, uses), Job.status.in_(("queued", "running")))
            .order_by(Job.id)
            .with_for_update()
            .execution_options(**FRESH)
        )

    async def of_nobody(self, tenant: str, *, ended: bool) -> Sequence[Job]:
        """A tenant's jobs in nobody's name and taste, which nobody else changes until the end.

        Those that wait or run; with `ended` all of them. A thousand at most.
        """
        theirs = [Job.tenant == tenant, Job.user_pk.is_(None), Job.kind == "generate"]
        theirs.append(~IN_A_PERSONS_TASTE)
        if not ended:
            theirs.append(Job.status.in_(("queued", "running")))
        return (
            await self._session.scalars(
                select(Job)
                .where(*theirs)
                .order_by(Job.id)
                .limit(NOBODYS_AT_ONCE)
                .with_for_update(of=Job)
                .execution_options(**FRESH)
            )
        ).all()

    async def made_for(self, user_pk: str) -> list[str]:
        """The ids of a person's own jobs for pictures, which nobody else changes until the end."""
        theirs = (Job.user_pk == user_pk, Job.kind == "generate")
        locked = select(Job.id).where(*theirs).order_by(Job.id).with_for_update()
        return list(await self._session.scalars(locked))

    async def delete(self, ids: Sequence[str]) -> None:
        """Delete the rows of a few hundred jobs, and of their pictures."""
        await self._session.execute(delete(Job).where(Job.id.in_(ids)))

    async def of_profile(self, profile_pk: str) -> Job | None:
        """The job that encodes this profile version."""
        return await self._session.scalar(select(Job).where(Job.profile_pk == profile_pk))

    async def ids_of_user(self, user_pk: str) -> list[str]:
        """All of a user's jobs, and the blends that used the user's taste, oldest first."""
        about = Job.id.in_(jobs_about(user_pk))
        oldest_first = select(Job.id).where(about).order_by(Job.created_at, Job.id)
        return list(await self._session.scalars(oldest_first))

    async def by_id(self, ids: Sequence[str]) -> dict[str, Job]:
        rows = await self._session.scalars(select(Job).where(Job.id.in_(ids)))
        return {row.id: row for row in rows}

    async def uses_of(
        self, user_pk: str, ids: Sequence[str]
    ) -> Sequence[tuple[str, float, int | None, str | None]]:
        """How these jobs used the user's tastes: job, weight, the pinned version, which taste."""
        rows = await self._session.execute(
            select(JobSubject.job_id, JobSubject.weight, Profile.version, User.taste)
            .join(User, User.pk == JobSubject.user_pk)
            .outerjoin(Profile, Profile.pk == JobSubject.profile_pk)
            .where(*_uses(user_pk), JobSubject.job_id.in_(ids))
            .order_by(JobSubject.job_id, JobSubject.position)
        )
        return [(row[0], row[1], row[2], row[3]) for row in rows]

    async def waiting_encode(self, user_pk: str) -> Sequence[Job]:
        """Encode jobs of a taste that no worker has begun, nor begins before the end."""
        of_taste = Job.profile_pk.in_(select(Profile.pk).where(Profile.user_pk == user_pk))
        return await self._all(
            select(Job)
            .where(of_taste, Job.kind == "encode", Job.status == "queued")
            .order_by(Job.id)
            .with_for_update()
            .execution_options(**FRESH)
        )

    async def unended_equal(self, sha256s: Collection[str]) -> dict[str, int]:
        """Those of these hashes of requests of which jobs wait or run, and how many."""
        if not sha256s:
            return {}
        equal_to = as_text({"sha256": sha256} for sha256 in sha256s)
        async with pipeline(self._session) as send:
            rows = await send(UNENDED_EQUAL, {"equal_to": equal_to})
        return {row[0]: row[1] for row in await rows()}

    async def waiting_equal(self, sha256: str) -> Sequence[Job]:
        """Waiting jobs of this hash of the request, oldest first."""
        waiting = select(Job).where(Job.request_sha256 == sha256, Job.status == "queued")
        return await self._all(waiting.order_by(Job.created_at, Job.id))

    async def forget_equal(self, job_id: str) -> None:
        """Give this job's pictures to no further request."""
        statement = update(Job).where(Job.id == job_id).values(request_sha256=None)
        await self._session.execute(statement)

    async def add_answered(
        self, new: NewGeneration, result: dict[str, Any], *, priority: int
    ) -> JobSeen:
        """A job that ends as it begins, with pictures of an earlier one."""
        job = Job(
            id=new.id,
            kind="generate",
            priority=priority,
            tenant=new.tenant,
            lane=new.lane,
            user_pk=new.user_pk,
            request=new.request,
            adapter_version=new.adapter_version,
            status="succeeded",
            seq=end_seq(0, 1),
            result=result,
            started_at=present(),
            finished_at=present(),
        )
        self._session.add(job)
        await self._session.flush()
        self._session.add_all(JobSubject(**row) for row in new.subject_rows)
        await self._session.flush()
        rows = await self._session.execute(SEEN, asked([new.id]))
        return seen_by_id(rows.all())[new.id]

    async def put_tickets_of_equal(self, sha256: str | None) -> None:
        """Another ticket for each waiting job of this hash: theirs may be spent, in vain."""
        waiting = await self.waiting_equal(sha256) if sha256 is not None else ()
        if waiting:
            await self._delivery.enqueue(self._session, "generate", len(waiting))

    async def put_tickets_out(self, kind: str, out: int) -> None:
        """Tickets for those waiting jobs of a kind that have none, when so many are out.

        Those whose equal runs need none: they are answered with it, or given tickets then.
        """
        may_run = select(func.count()).where(Job.status == "queued", Job.kind == kind, ~EQUAL_RUNS)
        waiting = await self._session.scalar(may_run) or 0
        await self._delivery.enqueue(self._session, kind, waiting - out)

    async def put_ticket_back(self, kind: str) -> None:
        """Another ticket of a kind, for one that was spent on nothing of it, if jobs of it wait."""
        if await self.queued(kind):
            await self._delivery.enqueue(self._session, kind, 1)

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
        canceled = bool(await self._changed(statement))
        if canceled:
            await self.put_tickets_of_equal(job.request_sha256)
        return canceled

    async def page(self, status: JobStatus | None, kind: str | None, limit: int) -> Sequence[Job]:
        """Jobs of every tenant, newest first (in this state, of this kind)."""
        statement = select(Job).order_by(Job.created_at.desc(), Job.id).limit(limit)
        if status is not None:
            statement = statement.where(Job.status == status)
        if kind is not None:
            statement = statement.where(Job.kind == kind)
        return await self._all(statement)

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


IN_A_PERSONS_TASTE = exists().where(JobSubject.job_id == Job.id, JobSubject.shared.is_(False))
"""Of a job: that it uses a taste of a person of its tenant; one that came by a code is nobody's."""


def jobs_about(user_pk: str) -> Select[str]:
    """The ids of a user's jobs and of those that used a taste of the user's, as a subquery.

    Others' jobs that used one by a code are theirs alone.

    A subquery, since one statement takes 32,766 values on SQLite and people may have more jobs.
    """
    uses = select(JobSubject.job_id).where(*_uses(user_pk))
    return select(Job.id).where(or_(Job.user_pk == user_pk, Job.id.in_(uses)))


def tastes_about(user_pk: str) -> Select[str]:
    """The pks of a user's tastes, the first too, as a subquery."""
    return select(User.pk).where(or_(User.pk == user_pk, User.owner_pk == user_pk))


def _uses(user_pk: str) -> tuple[ColumnElement[bool], ...]:
    return JobSubject.user_pk.in_(tastes_about(user_pk)), JobSubject.shared.is_(False)
