"""START HERE for what happens by itself: deletions, forgetting, retention, orphans."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial

from service.actions.erasure import erase_person
from service.actions.leftovers import BATCH, delete_noted, sweep_orphans
from service.core.auth import BROWSER_TENANT
from service.infra.parts import Parts
from service.infra.sql.oversight.audit import SERVICE
from service.infra.sql.repositories.retention import JobsOf
from service.infra.sql.repositories.users import SEEN_TO
from service.infra.sql.store import Store
from service.infra.sql.tables import now

log = logging.getLogger("ppd.housekeeping")

ORPHAN_AGE = timedelta(days=1)
_EVERY_S = 30.0
_TURN_S = 20.0
_RETENTION_EVERY = timedelta(hours=1)
_ORPHANS_EVERY = timedelta(days=1)
_PEOPLE = 50
_IN_VAIN = timedelta(days=3)
"""So long jobs of sessions are kept that made nothing: they cost their sender nothing. Longer than
an Idempotency-Key holds."""
AUDIT_ENTRIES = 1_000_000
"""The audit record keeps the newest of these: strangers can add to it by being refused."""


async def keep_house(parts: Parts) -> None:
    """Tidy up every half minute, until cancelled. Any number of processes may do it."""
    while True:
        await tidy(parts)
        await asyncio.sleep(_EVERY_S)


async def tidy(parts: Parts) -> None:
    """Do all that is due. A fault of one thing is logged and keeps no other from being done."""
    for work in (_delete, _forget, _retain, _sweep):
        try:
            await work(parts)
        except Exception:
            log.exception("housekeeping: %s failed; it comes again", work.__name__.strip("_"))


async def _delete(parts: Parts) -> None:
    if not await delete_noted(parts, _deadline()):
        log.info("pictures are still to be deleted; that goes on in half a minute")


async def _forget(parts: Parts) -> None:
    """Ask the cache to drop people who were erased: soon after, and once nothing runs any more."""
    async with parts.database.read() as store:
        erased = await store.tombstones.to_forget(BATCH)
    if not erased:
        return
    for one in erased:
        await parts.cache.forget_user(one.tenant, one.user_pk)
    async with parts.database.write() as store:
        await store.tombstones.forgotten([one.user_pk for one in erased])
    await parts.database.scrub()  # they may have been erased by another process


async def _retain(parts: Parts) -> None:
    if not await _begin(parts, "retention", _RETENTION_EVERY):
        return
    kept, deadline, deleted = parts.retention, _deadline(), 0
    ages: tuple[tuple[JobsOf, timedelta | None], ...] = (
        ("everybody", kept.jobs),
        ("nobody", kept.jobs_of_nobody),
        ("sessions in vain", _IN_VAIN),
    )
    for whose, age in ages:
        if age is not None:
            delete = partial(_delete_jobs, before=now() - age, whose=whose)
            deleted += await _in_batches(parts, delete, deadline)
    if kept.pictures is not None:
        made_before = now() - kept.pictures
        deleted += await _in_batches(
            parts, lambda store: store.due.delete_pictures(made_before, BATCH), deadline
        )
    async with parts.database.write() as store:
        noted_before = None if kept.audit is None else now() - kept.audit
        await store.audit.prune(noted_before, AUDIT_ENTRIES)
        await store.users.forget_ended_sessions(now() - kept.cookies)
    for tenant, unseen in ((None, kept.inactive_users), (BROWSER_TENANT, kept.sessions)):
        if unseen is not None:
            await _erase_inactive(parts, unseen, deadline, tenant)
    if deleted:
        log.info("retention: %d jobs and pictures were kept long enough", deleted)
        await parts.database.scrub()
        await _delete(parts)


async def _in_batches(
    parts: Parts, delete: Callable[[Store], Awaitable[int]], deadline: float
) -> int:
    """Delete until nothing more is due, a transaction for each few hundred."""
    total = 0
    while time.monotonic() < deadline:
        async with parts.database.write() as store:
            count = await delete(store)
        total += count
        if count < BATCH:
            break
    return total


async def _delete_jobs(store: Store, *, before: datetime, whose: JobsOf) -> int:
    return await store.due.delete_jobs(before, BATCH, whose)


async def _erase_inactive(
    parts: Parts, kept: timedelta, deadline: float, of_tenant: str | None
) -> None:
    while time.monotonic() < deadline:
        async with parts.database.read() as store:
            people = await store.due.inactive_users(now() - kept - SEEN_TO, _PEOPLE, of_tenant)
        for tenant, user_id in people:
            await erase_person(parts, tenant, user_id, who=SERVICE, unseen_for=kept + SEEN_TO)
        if people:
            log.info("retention: %d inactive people were erased", len(people))
        if len(people) < _PEOPLE:
            return


async def _sweep(parts: Parts) -> None:
    if await _begin(parts, "orphans", _ORPHANS_EVERY):
        removed = await sweep_orphans(parts, now() - ORPHAN_AGE)
        if removed:
            log.warning("%d pictures without rows were removed", removed)


async def _begin(parts: Parts, chore: str, every: timedelta) -> bool:
    async with parts.database.write() as store:
        return await store.chores.begin(chore, every)


def _deadline() -> float:
    return time.monotonic() + _TURN_S
