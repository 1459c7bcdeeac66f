"""The same POST twice leads to one thing. The record commits together with what it is about."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Response

from service.api.deps import CallerDep, FingerprintDep, IdempotencyDep, ServicesDep
from service.core.errors import ServiceError
from service.infra.repositories import Store
from service.infra.tables import IdempotencyKey


@dataclass(frozen=True)
class Accepted:
    """What a POST led to, by ids; the record of it is erased with the user and the job."""

    ids: dict[str, Any]
    user_pk: str | None = None
    job_id: str | None = None


class Once:
    """The write transaction of a POST, which a repetition with the same key does not run again."""

    def __init__(
        self,
        response: Response,
        caller: CallerDep,
        services: ServicesDep,
        key: IdempotencyDep,
        fingerprint: FingerprintDep,
    ) -> None:
        self._response = response
        self._scope = caller.scope
        self._database = services.database
        self._key = key
        self._fingerprint = fingerprint

    async def do(self, work: Callable[[Store], Awaitable[Accepted]]) -> dict[str, Any]:
        """The ids that `work` led to, now or when this key came first.

        Raises 422 when the key came with another request.
        """
        async with self._database.write() as store:
            earlier = await self._earlier(store)
            if earlier is not None:
                self._response.headers["Idempotent-Replayed"] = "true"
                return earlier
            accepted = await work(store)
            await self._remember(store, accepted)
        return accepted.ids

    async def _earlier(self, store: Store) -> dict[str, Any] | None:
        if self._key is None:
            return None
        record = await store.idempotency.find(self._scope, self._key)
        if record is None:
            return None
        if record.fingerprint != self._fingerprint:
            raise ServiceError(422, "idempotency_key_reused")
        return record.accepted

    async def _remember(self, store: Store, accepted: Accepted) -> None:
        if self._key is not None:
            record = IdempotencyKey(
                caller=self._scope,
                key=self._key,
                fingerprint=self._fingerprint,
                user_pk=accepted.user_pk,
                job_id=accepted.job_id,
                accepted=accepted.ids,
            )
            await store.idempotency.add(record)


OnceDep = Annotated[Once, Depends()]
