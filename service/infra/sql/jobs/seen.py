"""What clients see of jobs, by one query."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, String, and_, or_, select

from service.core.messages import JobStatus
from service.infra.sql.json_rows import as_text, json_rows
from service.infra.sql.repositories.base import ID, table
from service.infra.sql.tables import Job, User

_JOBS, _USERS = table(Job).c, table(User).c

_SEEN = select(
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
    _JOBS.kind,
).outerjoin(table(User), _USERS.pk == _JOBS.user_pk)
_asked = json_rows("asked", id=String())
SEEN = _SEEN.where(_JOBS.id.in_(select(_asked.c.id)))


def asked(ids: Collection[str]) -> dict[str, str]:
    """Ids of jobs in the form in which `SEEN` takes them; PostgreSQL takes not every text."""
    return {"asked": as_text({"id": job_id} for job_id in ids if ID.fullmatch(job_id))}


def page_of_jobs(
    tenant: str, user_pk: str | None, before: tuple[datetime, str] | None, limit: int
) -> Select[Any]:
    """Jobs of a tenant (and of one of its people), newest first, from there on."""
    page = _SEEN.where(_JOBS.tenant == tenant)
    if user_pk is not None:
        page = page.where(_JOBS.user_pk == user_pk)
    if before is not None:
        at, job_id = before
        older = and_(_JOBS.created_at == at, _JOBS.id < job_id)
        page = page.where(_JOBS.created_at <= at, or_(_JOBS.created_at < at, older))
    return page.order_by(_JOBS.created_at.desc(), _JOBS.id.desc()).limit(limit)


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
    kind: str = "generate"


def seen_by_id(rows: Sequence[Any]) -> dict[str, JobSeen]:
    """What `SEEN` found."""
    return {row[0]: _job_seen(*row) for row in rows}


def _job_seen(*columns: Any) -> JobSeen:
    job = JobSeen(*columns)
    return replace(job, created_at=job.created_at.astimezone(UTC))
