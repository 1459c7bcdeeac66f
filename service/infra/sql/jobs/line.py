"""All that waits or runs, in the order in which it is begun, and whose turns are kept for that."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.core.turns import Line, Path, Rank, Turn, Turns, path_of
from service.infra.sql.clock import present
from service.infra.sql.jobs.equal import EQUAL_RUNS
from service.infra.sql.tables import Job, TurnRow

_OF_ONE_LANE = 256
"""So many of one tenant, and of browsers of one address, are looked at: what waits is bounded, but
for readings that a new encoder makes anew."""
_WORK_OF_READING = 20
"""In steps of a picture."""


@dataclass(frozen=True)
class InLine:
    """A job that waits or runs. Of equal ones, which have `equal` in common, one is computed.

    `with_another`: it waits for the pictures of one that runs. `steps`: of a picture, `n` of which
    are made; None for a profile, which comes of `readings` that are yet to be made.
    """

    id: str
    kind: str
    tenant: str
    lane: str | None
    user_pk: str | None
    priority: int
    attempt: int
    runs: bool
    created_at: datetime
    started_at: datetime | None
    equal: str
    with_another: bool
    steps: int | None
    n: int | None
    readings: int | None

    @property
    def path(self) -> Path:
        return path_of(self.tenant, self.lane, self.user_pk)

    @property
    def work(self) -> float:
        """In steps of a picture."""
        if self.steps is None:
            return _WORK_OF_READING * (self.readings or 1)
        return self.steps * (self.n or 1)

    @property
    def rank(self) -> Rank:
        return self.priority, self.created_at, self.id


def _unended(*which: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    in_lane = func.row_number().over(
        partition_by=(Job.status, Job.tenant, Job.lane),
        order_by=(Job.priority, Job.created_at, Job.id),
    )
    some = (
        select(Job.id, in_lane.label("place"))
        .where(Job.status.in_(("queued", "running")), *which)
        .subquery()
    )
    return (
        select(
            Job.id,
            Job.kind,
            Job.tenant,
            Job.lane,
            Job.user_pk,
            Job.priority,
            Job.attempt,
            (Job.status == "running").label("runs"),
            Job.created_at,
            Job.started_at,
            func.coalesce(Job.request_sha256, Job.id).label("equal"),
            ((Job.status == "queued") & EQUAL_RUNS).label("with_another"),
            Job.request["steps"].as_integer().label("steps"),
            Job.request["n"].as_integer().label("n"),
            Job.request["readings"].as_integer().label("readings"),
        )
        .join(some, some.c.id == Job.id)
        .where(some.c.place <= _OF_ONE_LANE)
    )


_ALL = _unended()


async def line(session: AsyncSession) -> list[InLine]:
    """What runs, then what waits as it is begun if nobody else comes."""
    jobs = [InLine(**row._mapping) for row in await session.execute(_ALL)]
    running = [job for job in jobs if job.runs]
    return [*running, *await _in_turn(session, [job for job in jobs if not job.runs])]


async def waiting(
    session: AsyncSession, kinds: Collection[str], *which: ColumnElement[bool]
) -> Iterator[InLine]:
    """Jobs of these kinds that a worker may take, in the order of their turns."""
    fits = and_(
        Job.status == "queued",
        Job.kind.in_(kinds),
        or_(Job.expires_at.is_(None), Job.expires_at > present()),
        ~EQUAL_RUNS,
        *which,
    )
    jobs = [InLine(**row._mapping) for row in await session.execute(_unended(fits))]
    return await _in_turn(session, jobs)


async def _in_turn(session: AsyncSession, jobs: Sequence[InLine]) -> Iterator[InLine]:
    return iter(Line(await turns_of(session, (job.path for job in jobs)), jobs))


async def turns_of(session: AsyncSession, paths: Iterable[Path]) -> Turns:
    """The turns of these and of all above them."""
    nodes = {name_of(path[:depth]): path[:depth] for path in paths for depth in range(4)}
    rows = await session.execute(
        select(TurnRow.who, TurnRow.next, TurnRow.serving).where(TurnRow.who.in_(nodes))
    )
    return Turns({nodes[who]: Turn(following, now) for who, following, now in rows})


def name_of(path: Path) -> str:
    """Under which its turn is kept: nobody can be told from it."""
    return hashlib.sha256("/".join(path).encode()).hexdigest()[:32]
