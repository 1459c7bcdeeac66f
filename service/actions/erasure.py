"""Erasing a person everywhere: the rows in one commit, all else surely after it."""

import logging
from dataclasses import dataclass
from datetime import timedelta

from service.actions.leftovers import delete_soon
from service.infra.parts import Parts

log = logging.getLogger("ppd.erasure")


@dataclass(frozen=True)
class Receipt:
    """What is gone, as counts, and what goes with the next sweeps."""

    erased: dict[str, int]
    pending_images: int
    cache_forgotten: bool
    scrubbed: bool


async def erase_person(
    parts: Parts, tenant: str, user_id: str, *, who: str, unseen_for: timedelta | None = None
) -> Receipt | None:
    """Erase a person of a tenant (who was not seen for so long); None when there is none.

    `who` erases, for the audit record, which keeps our number of the person and no name.

    With the commit the rows are gone, jobs are fenced off, and it is written down which pictures
    are to be deleted and whom the cache is to drop. Both are done at once where the stores allow,
    else by `service.actions.housekeeping`.
    """
    async with parts.database.write() as store:
        erased = await store.users.erase(tenant, user_id, unseen_for)
        if erased is not None:
            await store.audit.note(who, "person.erased", f"person:{erased.user_pk}", tenant)
    if erased is None:
        return None
    for job_id in erased.running:
        parts.signals.cancel(job_id)
    for job_id in erased.job_ids:
        parts.events.forget(job_id)
    return Receipt(
        erased={
            "choices": erased.choices,
            "profiles": erased.profiles,
            "jobs": len(erased.job_ids),
            "images": len(erased.image_keys),
        },
        cache_forgotten=await _forget(parts, tenant, erased.user_pk),
        pending_images=len(erased.image_keys) - await delete_soon(parts, erased.image_keys),
        scrubbed=await parts.database.scrub(),
    )


async def _forget(parts: Parts, tenant: str, user_pk: str) -> bool:
    try:
        await parts.cache.forget_user(tenant, user_pk)
    except Exception:
        log.exception("the cache did not drop an erased person; it is asked again")
        return False
    return True
