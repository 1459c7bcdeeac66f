"""The same POST twice leads to one thing. The record commits together with what it is about."""

from typing import Any

from service.core.auth import Caller
from service.core.errors import ServiceError
from service.infra.repositories import Store
from service.infra.tables import IdempotencyKey

REPLAYED = {"Idempotent-Replayed": "true"}


async def earlier(
    store: Store, caller: Caller, key: str | None, fingerprint: str
) -> dict[str, Any] | None:
    """What the first POST with this key led to; 422 when that was another request.

    Needs a write transaction: a second POST waits for the first one's commit.
    """
    if key is None:
        return None
    record = await store.idempotency.find(caller.scope, key)
    if record is None:
        return None
    if record.fingerprint != fingerprint:
        raise ServiceError(422, "idempotency_key_reused")
    return record.accepted


async def remember(
    store: Store,
    caller: Caller,
    key: str | None,
    fingerprint: str,
    accepted: dict[str, Any],
    *,
    user_pk: str | None = None,
    job_id: str | None = None,
) -> None:
    """Keep what this POST led to; it is erased with the user and the job."""
    if key is not None:
        await store.idempotency.add(
            IdempotencyKey(
                caller=caller.scope,
                key=key,
                fingerprint=fingerprint,
                user_pk=user_pk,
                job_id=job_id,
                accepted=accepted,
            )
        )
