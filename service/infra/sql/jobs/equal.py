"""Whether an equal of a job runs, in a query of jobs."""

from sqlalchemy import exists
from sqlalchemy.orm import aliased

from service.infra.sql.tables import Job

ONE_RUNS = "uq_jobs_running_request_sha256"
"""The index that lets one of equal jobs run."""

_equal = aliased(Job)
EQUAL_RUNS = exists().where(_equal.status == "running", _equal.request_sha256 == Job.request_sha256)
