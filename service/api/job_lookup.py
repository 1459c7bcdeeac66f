"""How jobs stand, asked for all who want to know at the same moment by one query."""

from collections.abc import Sequence

from service.core.auth import Caller
from service.core.errors import ServiceError
from service.core.groups import InGroups
from service.infra.sql.database import Database
from service.infra.sql.jobs.seen import SEEN, JobSeen, asked, seen_by_id

_AT_ONCE = 100


class JobLookup:
    """Jobs by their ids. A query begins after everybody whom it answers has asked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked = InGroups(self._find, _AT_ONCE)

    async def visible(self, caller: Caller, job_id: str) -> JobSeen:
        """The caller's job; 404 for everybody else's."""
        job = await self._asked.ask(job_id)
        if job is None or not is_visible(job, caller):
            raise ServiceError(404, "job_not_found")
        return job

    async def _find(self, job_ids: Sequence[str]) -> list[JobSeen | None]:
        found = seen_by_id(await self._database.rows(SEEN, asked(set(job_ids))))
        return [found.get(job_id) for job_id in job_ids]


def is_visible(job: JobSeen, caller: Caller) -> bool:
    """Whether it is the caller's tenant's; for a browser session, its own person's."""
    if job.tenant != caller.tenant:
        return False
    return caller.own_user_id is None or job.user_id == caller.own_user_id
