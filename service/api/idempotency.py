"""The same POST twice leads to one thing. The record commits together with what it is about."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response

from service.api.deps import fingerprint, known_caller, services_of
from service.api.http.in_flight import being_carried_out
from service.api.services import Services
from service.core.auth import Caller
from service.core.errors import ServiceError
from service.infra.sql.store import Store
from service.infra.sql.tables import IdempotencyKey


@dataclass(frozen=True)
class Accepted:
    """What a POST led to, by ids; the record of it is erased with the user and the job."""

    ids: dict[str, Any]
    user_pk: str | None = None
    job_id: str | None = None


Work = Callable[[Store], Awaitable[Accepted]]
Prepare = Callable[[], Awaitable[None]]
"""What is done before the transaction begins, for the first request alone."""


async def _nothing() -> None:
    """Not every request prepares something."""


class Once:
    """The write transaction of a POST, which a repetition with the same key does not run again."""

    def __init__(
        self,
        response: Response,
        caller: Caller,
        services: Services,
        key: str | None,
        fingerprint: str,
    ) -> None:
        self._response = response
        self._scope = caller.scope
        self._database = services.database
        self._in_flight = services.in_flight
        self._key = key
        self._fingerprint = fingerprint

    @property
    def has_key(self) -> bool:
        """Whether a repetition would be known."""
        return self._key is not None

    async def do(self, work: Work, prepare: Prepare = _nothing) -> dict[str, Any]:
        """The ids that `work` led to, now or when this key came first.

        Raises 422 when the key came with another request, 409 while its first one still runs. What
        another replica carries out is 409 until it is committed, whatever its request.
        """
        if self._key is None:
            await prepare()
            async with self._database.write() as store:
                return (await work(store)).ids
        async with self._database.read() as store:
            earlier = await self._earlier(store, self._key)
        if earlier is not None:
            return earlier
        with self._in_flight.hold(self._scope, self._key, self._fingerprint):
            await prepare()
            async with self._database.write() as store:
                # `in_flight` knows this process only; here the other replicas show themselves.
                if not await store.alone_now(f"idempotency {self._scope} {self._key}"):
                    raise being_carried_out()
                return await self._earlier(store, self._key) or await self._first(
                    store, self._key, work
                )

    async def note(self, refusal: ServiceError) -> None:
        """Nothing: a repetition is known by its key, and no other request has that."""

    async def _earlier(self, store: Store, key: str) -> dict[str, Any] | None:
        record = await store.idempotency.find(self._scope, key)
        if record is None:
            return None
        if record.fingerprint != self._fingerprint:
            raise ServiceError(422, "idempotency_key_reused")
        self._response.headers["Idempotent-Replayed"] = "true"
        return record.accepted

    async def _first(self, store: Store, key: str, work: Work) -> dict[str, Any]:
        accepted = await work(store)
        record = IdempotencyKey(
            caller=self._scope,
            key=key,
            fingerprint=self._fingerprint,
            user_pk=accepted.user_pk,
            job_id=accepted.job_id,
            accepted=accepted.ids,
        )
        await store.idempotency.add(record)
        return accepted.ids


_KEY = r"^[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?$"
_KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        json_schema_extra={"minLength": 1, "maxLength": 255, "pattern": _KEY},
        description="A repeated POST with the same key leads to what the first one led to.",
    ),
]


async def once_of(
    request: Request,
    response: Response,
    key: _KeyHeader = None,
) -> Once:
    if key is not None and not re.fullmatch(_KEY, key):
        raise ServiceError(400, "invalid_idempotency_key")
    seen = "" if key is None else await fingerprint(request)
    return Once(response, known_caller(request), services_of(request), key, seen)


OnceDep = Annotated[Once, Depends(once_of)]
