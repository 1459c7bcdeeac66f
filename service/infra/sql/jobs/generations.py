"""New jobs for pictures, queued many at a time."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Float,
    Integer,
    String,
    bindparam,
    case,
    insert,
    literal,
    select,
)

from service.infra.sql.clock import in_seconds, present
from service.infra.sql.jobs.seen import JobSeen
from service.infra.sql.json_rows import json_rows
from service.infra.sql.repositories.adapters import FIRST_ADAPTER, TRIAL_ADAPTER
from service.infra.sql.repositories.base import table
from service.infra.sql.tables import Job, JobSubject, new_id

_JOBS = table(Job).c


@dataclass(frozen=True)
class Subject:
    """A taste that a job uses, by the profile version pinned for it, if any.

    `shared`: it is another's, who gave a code for it.
    """

    user_pk: str
    profile_pk: str | None
    weight: float
    shared: bool = False


@dataclass(frozen=True)
class NewGeneration:
    """A job for pictures, to be queued."""

    tenant: str
    user_pk: str | None
    user_id: str | None
    request: dict[str, Any]
    subjects: tuple[Subject, ...] = ()
    request_sha256: str | None = None
    lane: str | None = None
    adapter_version: str | None = None
    """Known for one that is answered at once; else the row is given one in service."""
    trial_version: str | None = None
    """The trial that the person falls to: given if it is in service still, else the first is."""
    id: str = field(default_factory=new_id)

    def as_queued(self, at: datetime) -> JobSeen:
        """What clients see of it from now on."""
        return JobSeen(self.id, self.tenant, self.user_pk, self.user_id, "queued", 1, at)

    @property
    def row(self) -> dict[str, Any]:
        """The job's row, as far as it differs from others'."""
        about = {"tenant": self.tenant, "lane": self.lane, "user_pk": self.user_pk}
        asked = {"request": self.request, "request_sha256": self.request_sha256}
        return {"id": self.id, "trial_version": self.trial_version, **asked, **about}

    @property
    def subject_rows(self) -> list[dict[str, Any]]:
        """The rows of its subjects, in the order of the request."""
        return [
            {"job_id": self.id, "position": position, **vars(subject)}
            for position, subject in enumerate(self.subjects)
        ]


_jobs = json_rows(
    "jobs",
    id=String(),
    tenant=String(),
    lane=String(),
    user_pk=String(),
    request=JSON(),
    request_sha256=String(),
    trial_version=String(),
)
_GIVEN = [one for one in _jobs.c if one.key != "trial_version"]
_ALIKE = {
    "kind": literal("generate"),
    "status": literal("queued"),
    "seq": literal(1),
    "attempt": literal(0),
    "losses": literal(0),
    "turn": literal(0),
    "priority": bindparam("priority", type_=Integer),
    "created_at": present(),
    "expires_at": in_seconds(bindparam("expiry_s", type_=Float)),
    "adapter_version": case(
        (_jobs.c.trial_version == TRIAL_ADAPTER, _jobs.c.trial_version), else_=FIRST_ADAPTER
    ),
}
ADD_GENERATIONS = (
    insert(table(Job))
    .from_select(
        [*(one.key for one in _GIVEN), *_ALIKE],
        select(*_GIVEN, *_ALIKE.values()),
        include_defaults=False,
    )
    .returning(_JOBS.id, _JOBS.created_at)
)
_subjects = json_rows(
    "subjects",
    job_id=String(),
    position=Integer(),
    user_pk=String(),
    profile_pk=String(),
    weight=Float(),
    shared=Boolean(),
)
ADD_SUBJECTS = insert(table(JobSubject)).from_select(_subjects.c.keys(), select(*_subjects.c))
