"""All that waits or runs, in the order in which it is begun."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from service.infra.sql.jobs.equal import EQUAL_RUNS
from service.infra.sql.tables import Job

_AT_MOST = 4096


@dataclass(frozen=True)
class InLine:
    """A job that waits or runs. Of equal ones, which have `equal` in common, one is computed.

    `with_another`: it waits for the pictures of one that runs. `steps`: of a picture, `n` of which
    are made; None for a reading.
    """

    id: str
    kind: str
    runs: bool
    started_at: datetime | None
    equal: str
    with_another: bool
    steps: int | None
    n: int | None


LINE = (
    select(
        Job.id,
        Job.kind,
        (Job.status == "running").label("runs"),
        Job.started_at,
        func.coalesce(Job.request_sha256, Job.id).label("equal"),
        ((Job.status == "queued") & EQUAL_RUNS).label("with_another"),
        Job.request["steps"].as_integer().label("steps"),
        Job.request["n"].as_integer().label("n"),
    )
    .where(Job.status.in_(("queued", "running")))
    .order_by(Job.turn, Job.priority, Job.created_at, Job.id)
    .limit(_AT_MOST)
)
