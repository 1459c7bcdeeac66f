"""Bytes in the image store without a row: it never came, or it went."""

import logging
import time
from collections.abc import Sequence
from datetime import datetime

from service.infra.parts import Parts

log = logging.getLogger("ppd.images")

BATCH = 500
_IN_REQUEST_S = 5.0


async def delete_leftovers(parts: Parts, keys: Sequence[str]) -> None:
    """Delete those of these pictures that no committed row points to.

    What failed may have failed after its commit, so the rows are asked. Where that is not possible
    nothing is deleted: the sweep of orphans finds what is left. Where the store fails they are
    noted, to be deleted later.
    """
    if not keys:
        return
    orphans: list[str] = []
    try:
        async with parts.database.read() as store:
            kept = await store.images.known(keys)
        orphans = [key for key in keys if key not in kept]
        await parts.images.delete(orphans)
    except OSError:
        log.exception("pictures without rows could not be deleted; they are deleted later")
        await _note(parts, orphans)
    except Exception:
        log.exception("pictures without rows were left for the sweep of orphans")


async def _note(parts: Parts, keys: Sequence[str]) -> None:
    try:
        async with parts.database.write() as store:
            await store.deletions.note_keys(keys)
    except Exception:
        log.exception("pictures without rows were left for the sweep of orphans")


async def delete_noted(parts: Parts, deadline: float) -> bool:
    """Delete what is noted, until none is left or `deadline` (of the monotonic clock) has come.

    False when some are left. Raises OSError when the store fails: the notes stay.
    """
    while time.monotonic() < deadline:
        async with parts.database.read() as store:
            keys = await store.deletions.oldest(BATCH)
        if not keys:
            return True
        await delete_now(parts, keys)
    return False


async def delete_now(parts: Parts, keys: Sequence[str]) -> None:
    """Delete a few hundred noted pictures; raises OSError when the store fails."""
    await parts.images.delete(keys)
    async with parts.database.write() as store:
        await store.deletions.done(keys)


async def delete_soon(parts: Parts, keys: Sequence[str]) -> int:
    """How many noted pictures could be deleted in the time that a request may take."""
    deadline, gone = time.monotonic() + _IN_REQUEST_S, 0
    try:
        for start in range(0, len(keys), BATCH):
            if time.monotonic() > deadline:
                break
            batch = keys[start : start + BATCH]
            await delete_now(parts, batch)
            gone += len(batch)
    except Exception:
        log.exception("pictures whose rows are gone are deleted later")
    return gone


async def sweep_orphans(parts: Parts, before: datetime) -> int:
    """Delete pictures that were stored before this moment and that no row points to.

    A job or a request stores its pictures moments before it commits their rows, so a day is safe.
    """
    removed = 0
    async for keys in parts.images.stored_before(before):
        async with parts.database.read() as store:
            known = await store.images.known(keys)
        orphans = [key for key in keys if key not in known]
        await parts.images.delete(orphans)
        removed += len(orphans)
    return removed
