"""What clients see of jobs, by one query."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import String, bindparam, select

from service.core.messages import JobStatus
from service.infra.sql.repositories.base import table
from service.infra.sql.tables import Job, User

_JOBS, _USERS = table(Job).c, table(User).c

SEEN = (
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
    .outerjoin(table(User), _USERS.pk == _JOBS.user_pk)
    .where(_JOBS.id.in_(bindparam("ids", expanding=True, type_=String)))
)


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
