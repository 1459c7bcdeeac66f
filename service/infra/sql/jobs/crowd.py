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
_UNENDED = (
    select(
        _JOBS.tenant,
        case((_JOBS.user_pk.in_(_OWNERS), _JOBS.user_pk)).label("user_pk"),
        _JOBS.user_pk.is_(None).label("of_nobody"),
        case((_JOBS.kind == _KIND, 1), else_=0).label("of_kind"),
        _JOBS.status,
        _JOBS.turn,
        # Of equal requests one is computed: they are one that waits, or none where it runs.
        func.coalesce(_JOBS.request_sha256, _JOBS.id).label("of_request"),
    )
    # In the text, not beside it: planned for any status, this would read the whole table.
    .where(_JOBS.status.in_((literal_column("'queued'"), literal_column("'running'"))))
    .subquery()
)
CROWD = select(
    _UNENDED.c.tenant,
    _UNENDED.c.user_pk,
    _UNENDED.c.of_nobody,
    (
        func.count(_UNENDED.c.of_request.distinct()).filter(_UNENDED.c.of_kind == 1)
        - func.count(_UNENDED.c.of_request.distinct()).filter(
            _UNENDED.c.status == "running", _UNENDED.c.of_kind == 1
        )
    ).label("waiting"),
    func.max(_UNENDED.c.turn).filter(_UNENDED.c.of_kind == 1).label("last"),
    func.max(_UNENDED.c.turn).filter(_UNENDED.c.status == "running").label("running"),
    func.min(_UNENDED.c.turn).filter(_UNENDED.c.status == "queued").label("coming"),
).group_by(_UNENDED.c.tenant, _UNENDED.c.user_pk, _UNENDED.c.of_nobody)
"""A row for each of these people, and for each tenant two more: jobs of nobody, and of others."""


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
    for tenant, user_pk, of_nobody, waiting, last, running, coming in rows:
        crowd.waiting += waiting
        crowd.of_tenant[tenant] += waiting
        crowd.running = max(_not_none(crowd.running, running), default=None)
        crowd.coming = min(_not_none(crowd.coming, coming), default=None)
        if user_pk is not None or of_nobody:
            crowd.of_owner[tenant, user_pk] = waiting
            if last is not None:
                crowd.last[tenant, user_pk] = last
    return crowd


def _not_none(*values: int | None) -> list[int]:
    return [value for value in values if value is not None]
