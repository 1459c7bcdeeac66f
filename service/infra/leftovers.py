"""Pictures whose bytes were stored for rows that never came."""

import logging
from collections.abc import Sequence

from service.infra.parts import Parts

log = logging.getLogger("ppd.images")


async def delete_leftovers(parts: Parts, keys: Sequence[str]) -> None:
    """Delete those of these pictures that no committed row points to.

    What failed may have failed after its commit, so the rows are asked. Where that is not possible
    nothing is deleted: the next start sweeps what is left.
    """
    if not keys:
        return
    try:
        async with parts.database.read() as store:
            kept = await store.images.known(keys)
        await parts.images.delete([key for key in keys if key not in kept])
    except Exception:
        log.exception("pictures without rows were left for the sweep of the next start")
