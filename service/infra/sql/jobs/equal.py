"""Whether an equal of a job runs, in a query of jobs; and how many equals wait or run."""

from sqlalchemy import String, exists, func, literal_column, select
from sqlalchemy.orm import aliased

from service.infra.sql.json_rows import json_rows
from service.infra.sql.repositories.base import table
from service.infra.sql.tables import Job

ONE_RUNS = "uq_jobs_running_request_sha256"
"""The index that lets one of equal jobs run."""

_equal = aliased(Job)
EQUAL_RUNS = exists().where(_equal.status == "running", _equal.request_sha256 == Job.request_sha256)

_JOBS = table(Job).c
_equal_to = json_rows("equal_to", sha256=String())
UNENDED_EQUAL = (
    select(_JOBS.request_sha256, func.count())
    .join(_equal_to, _equal_to.c.sha256 == _JOBS.request_sha256)
    .where(_JOBS.status.in_((literal_column("'queued'"), literal_column("'running'"))))
    .group_by(_JOBS.request_sha256)
)
