"""Erasing a person everywhere: the rows in one commit, all else surely after it."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from service.actions.leftovers import BATCH, delete_now
from service.infra.parts import Parts

log = logging.getLogger("ppd.erasure")

_IN_REQUEST_S = 5.0


@dataclass(frozen=True)
class Receipt:
    """What is gone, as counts, and what goes with the next sweeps."""

    erased: dict[str, int]
    pending_images: int
    cache_forgotten: bool
    scrubbed: bool


async def erase_person(
    parts: Parts, tenant: str, user_id: str, unseen_for: timedelta | None = None
) -> Receipt | None:
    """Erase a person of a tenant (who was not seen for so long); None when there is none.

    With the commit the rows are gone, jobs are fenced off, and it is written down which pictures
    are to be deleted and whom the cache is to drop. Both are done at once where the stores allow,
    else by `service.actions.housekeeping`.
    """
    async with parts.database.write() as store:
        erased = await store.users.erase(tenant, user_id, unseen_for)
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
        pending_images=len(erased.image_keys) - await _delete(parts, erased.image_keys),
        scrubbed=await parts.database.scrub(),
    )


async def _forget(parts: Parts, tenant: str, user_pk: str) -> bool:
    try:
        await parts.cache.forget_user(tenant, user_pk)
    except Exception:
        log.exception("the cache did not drop an erased person; it is asked again")
        return False
    return True


async def _delete(parts: Parts, keys: Sequence[str]) -> int:
    """How many of the pictures could be deleted in the time that a request may take."""
    deadline, gone = time.monotonic() + _IN_REQUEST_S, 0
    try:
        for start in range(0, len(keys), BATCH):
            if time.monotonic() > deadline:
                break
            batch = keys[start : start + BATCH]
            await delete_now(parts, batch)
            gone += len(batch)
    except Exception:
        log.exception("pictures of an erased person are deleted later")
    return gone
