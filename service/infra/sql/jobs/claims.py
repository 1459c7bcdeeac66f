"""Jobs in workers' hands: claimed, held on to, ended, and taken from those that are lost."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from service.core.messages import SEQ_PER_ATTEMPT, JobStatus, end_seq, first_seq, requeued_seq
from service.infra.sql.clock import in_seconds, present
from service.infra.sql.delivery import JobDelivery
from service.infra.sql.jobs.equal import EQUAL_RUNS
from service.infra.sql.jobs.line import InLine, name_of, turns_of, waiting
from service.infra.sql.repositories.base import FRESH, Repository
from service.infra.sql.tables import Job, TurnRow

_TURNS_KEPT_S = 3600.0


class Claims(Repository):
    """Workers' hold on jobs. With `Jobs`, their only legal ways from state to state."""

    def __init__(self, session: AsyncSession, delivery: JobDelivery) -> None:
        super().__init__(session)
        self._delivery = delivery

    async def claim(
        self,
        kinds: Collection[str],
        worker_id: str,
        lease_s: float,
        losses_below: int | None = None,
        but_of: str | None = None,
    ) -> Job | None:
        """Take the job of these kinds whose turn it is; its owners come later for it.

        Two workers never take the same: a row that one has its hand on is passed by. So is a job
        whose equal runs. Raises IntegrityError where another transaction takes its equal in this
        moment.
        `losses_below` leaves those out that have lost so many workers already, `but_of` those of
        a tenant.
        """
        fits = [] if losses_below is None else [Job.losses < losses_below]
        if but_of is not None:
            fits.append(Job.tenant != but_of)
        for job in await waiting(self._session, kinds, *fits):
            taken = await self._take(job.id, worker_id, lease_s)
            if taken is not None:
                if job.attempt == 0:  # what was lost or stopped has had its turn
                    await self._serve(job)
                return taken
        return None

    async def _take(self, job_id: str, worker_id: str, lease_s: float) -> Job | None:
        free = (
            select(Job.id)
            .where(Job.id == job_id, Job.status == "queued", ~EQUAL_RUNS)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        return await self._session.scalar(
            update(Job)
            .where(Job.id == free)
            .values(
                status="running",
                attempt=Job.attempt + 1,
                seq=(Job.attempt + 1) * SEQ_PER_ATTEMPT + first_seq(0),
                started_at=present(),
                worker_id=worker_id,
                lease_until=in_seconds(lease_s),
            )
            .returning(Job)
            .execution_options(synchronize_session=False, **FRESH)
        )

    async def _serve(self, job: InLine) -> None:
        """Move on the turns of the job's owners; the uppermost first, as everybody does."""
        turns = await turns_of(self._session, [job.path])
        for path, turn in turns.serve(job.path, job.work).items():
            row = {"next": turn.next, "serving": turn.present, "served_at": present()}
            insert = self._insert(TurnRow).values(who=name_of(path), **row)
            await self._session.execute(
                insert.on_conflict_do_update(index_elements=[TurnRow.who], set_=row)
            )

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
        """End a running job; false when this attempt is not the current one any more.

        One that was given earlier pictures (`cached`) has none of its own to give to others.
        """
        code, detail = error or (None, None)
        given = {"request_sha256": None} if result is not None and result.get("cached") else {}
        statement = _fenced(job_id, attempt).values(
            **given,
            status=status,
            seq=end_seq(attempt, 0),
            result=result,
            error_code=code,
            error_detail=detail,
            finished_at=present(),
            lease_until=None,
        )
        return bool(await self._changed(statement))

    async def answer(self, job: Job, result: dict[str, Any]) -> bool:
        """End a waiting job with what was made before; false when it does not wait any more."""
        statement = _fenced(job.id, job.attempt, "queued").values(
            status="succeeded",
            seq=end_seq(job.attempt, job.seq),
            result=result,
            request_sha256=None,
            started_at=present(),
            finished_at=present(),
        )
        return bool(await self._changed(statement))

    async def release(self, job: Job) -> None:
        """Queue a running job again, because its worker stops."""
        again = _fenced(job.id, job.attempt).values(
            status="queued", seq=requeued_seq(job.attempt), lease_until=None
        )
        if await self._changed(again):
            await self._delivery.enqueue(self._session, job.kind, 1)

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

    async def expire(self) -> list[Job]:
        """End jobs that waited too long; one that somebody has in hand is left to them.

        Turns of those who were not served for long go too.
        """
        late = await self._in_nobodys_hand([Job.status == "queued", Job.expires_at < present()])
        for job in late:
            job.status, job.error_code = "expired", "expired"
            job.finished_at = present()
            job.seq = end_seq(job.attempt, job.seq)
        await self._session.flush()
        await self._session.execute(
            delete(TurnRow).where(TurnRow.served_at < in_seconds(-_TURNS_KEPT_S))
        )
        return list(late)

    async def _in_nobodys_hand(self, which: Sequence[ColumnElement[bool]]) -> Sequence[Job]:
        """Jobs, locked until the end, without those that another transaction has locked."""
        return await self._all(
            select(Job)
            .where(*which)
            .order_by(Job.id)
            .with_for_update(skip_locked=True)
            .execution_options(**FRESH)
        )


def _fenced(job_id: str, attempt: int, status: JobStatus = "running") -> Any:
    return update(Job).where(Job.id == job_id, Job.attempt == attempt, Job.status == status)
