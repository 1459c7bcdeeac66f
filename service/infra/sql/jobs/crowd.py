"""Whom a group of requests meets, in few queries: its people, and who waits before them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import String, bindparam, case, func, literal_column, select

from service.core.fairness import Crowd
from service.core.generation import Found
from service.infra.sql.clock import UtcDateTime
from service.infra.sql.json_rows import as_text, json_rows
from service.infra.sql.repositories.base import table
from service.infra.sql.repositories.profiles import newest_pk
from service.infra.sql.tables import Job, User

_JOBS, _USERS = table(Job).c, table(User).c

_KIND = bindparam("kind", type_=String)

Person = tuple[str, str]
"""A tenant, and its own name for one of its people."""

_people = json_rows("people", tenant=String(), user_id=String())
HELD = (
    select(_USERS.tenant, _USERS.user_id, _USERS.pk, newest_pk("ready"), newest_pk("encoding"))
    .join(_people, (_people.c.tenant == _USERS.tenant) & (_people.c.user_id == _USERS.user_id))
    .where(_USERS.seen_at >= bindparam("since", type_=UtcDateTime))
    .with_for_update(read=True, key_share=True, skip_locked=True, of=table(User))
)

_owners = json_rows("owners", tenant=String(), user_id=String())
_OWNERS = select(_USERS.pk).join(
    _owners, (_owners.c.tenant == _USERS.tenant) & (_owners.c.user_id == _USERS.user_id)
)
_WAITING = (
    select(
        _JOBS.tenant,
        _JOBS.lane,
        case((_JOBS.user_pk.in_(_OWNERS), _JOBS.user_pk)).label("user_pk"),
        _JOBS.status,
        # Of equal requests one is computed: they are one that waits, or none where it runs.
        func.coalesce(_JOBS.request_sha256, _JOBS.id).label("of_request"),
    )
    # In the text, not beside it: planned for any status, this would read the whole table.
    .where(
        _JOBS.status.in_((literal_column("'queued'"), literal_column("'running'"))),
        _JOBS.kind == _KIND,
    )
    .subquery()
)
CROWD = select(
    _WAITING.c.tenant,
    _WAITING.c.lane,
    _WAITING.c.user_pk,
    func.count(_WAITING.c.of_request.distinct())
    - func.count(_WAITING.c.of_request.distinct()).filter(_WAITING.c.status == "running"),
).group_by(_WAITING.c.tenant, _WAITING.c.lane, _WAITING.c.user_pk)
"""A row for each of these people, and for each tenant (and address) one more, of all others."""


@dataclass(frozen=True)
class Held:
    """A person who is not erased before this transaction ends, and the newest profile versions."""

    pk: str
    found: Found


def named(people: Collection[Person]) -> str:
    """People in the form in which `HELD` and `CROWD` take them."""
    return as_text({"tenant": tenant, "user_id": user_id} for tenant, user_id in people)


def crowd_of(rows: Sequence[Any]) -> Crowd:
    crowd = Crowd()
    for tenant, lane, user_pk, waiting in rows:
        crowd.join((tenant, lane, user_pk), waiting)
    return crowd
