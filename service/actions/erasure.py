"""Erasing a person, or a taste, everywhere: the rows in one commit, all else surely after it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from service.actions.canceling import end, tell
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
        cache_forgotten=await _forget(parts, tenant, [erased.user_pk, *erased.taste_pks]),
        pending_images=len(erased.image_keys) - await delete_soon(parts, erased.image_keys),
        scrubbed=await parts.database.scrub(),
    )


async def erase_taste(parts: Parts, tenant: str, name: str, *, who: str) -> Receipt | None:
    """Erase a named taste of a person; None when there is none. As `erase_person` otherwise.

    Its answers, versions, uploads and codes go, and what waits or runs in it is canceled. Pictures
    that were made in it are the person's, and stay.
    """
    async with parts.database.write() as store:
        taste = await store.users.taste_to_remove(tenant, name)
        if taste is None:
            return None
        unended = await store.jobs.unended_in(taste.pk)
        canceled = [job for job in unended if await end(store, job)]
        removed = await store.users.remove_taste(taste)
        detail = {"choices": removed.choices, "profiles": removed.profiles}
        await store.audit.note(who, "taste.erased", f"person:{taste.owner_pk}", tenant, **detail)
    for job in canceled:
        tell(parts, job)
    return Receipt(
        erased={**detail, "images": len(removed.image_keys)},
        cache_forgotten=await _forget(parts, tenant, [taste.pk]),
        pending_images=len(removed.image_keys) - await delete_soon(parts, removed.image_keys),
        scrubbed=await parts.database.scrub(),
    )


async def _forget(parts: Parts, tenant: str, user_pks: Sequence[str]) -> bool:
    try:
        for user_pk in user_pks:
            await parts.cache.forget_user(tenant, user_pk)
    except Exception:
        log.exception("the cache did not drop an erased person; it is asked again")
        return False
    return True
