"""Clients that try again by themselves and send no Idempotency-Key: OpenAI's.

They say how often they have tried before; who does not say has not. So each request is remembered
for a while, and a further try takes up the newest one like it whose answer may have been lost: the
same API key, the same body. Each is taken up once, so of equal calls at the same time each has its
own job. A try that was refused is remembered too: the next one is to make what it could not. Of
these there is room for so many; whose next try could not be known is told to make none.
"""

import logging
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response

from service.api.deps import ProtectedRoute, fingerprint, known_caller, services_of
from service.api.idempotency import Once, OnceDep, Work
from service.api.services import Services
from service.core.auth import Caller
from service.core.errors import DatabaseAway, ServiceError
from service.infra.memory.rate_limits import RateLimits
from service.infra.sql.repositories.idempotency import TRIED_AGAIN_WITHIN_S
from service.infra.sql.store import Store
from service.infra.sql.tables import IdempotencyKey, new_id

log = logging.getLogger("ppd.http")

_COUNT = "x-stainless-retry-count"
_TRIED_AGAIN = frozenset({409, 429})
"""These refusals, and all from 500 on, are what such a client tries again after."""
DO_NOT_RETRY = {"x-should-retry": "false"}
"""OpenAI's clients would send the request again by themselves."""


class Tries:
    """The write transaction of a POST, which a further try of it does not run again."""

    def __init__(
        self, response: Response, caller: Caller, services: Services, fingerprint: str, tries: int
    ) -> None:
        self._response = response
        self._scope = caller.scope
        self._key_pk = caller.key_pk or ""
        self._database = services.database
        self._rates = services.rates
        self._fingerprint = fingerprint
        self._tries = tries

    has_key = True

    async def do(self, work: Work) -> dict[str, Any]:
        """The ids that `work` led to, now or when an earlier try came."""
        try:
            async with self._database.write() as store:
                await self._alone(store)
                earlier = await self._earlier(store)
                if earlier is not None and earlier.job_id is not None:
                    self._response.headers["Idempotent-Replayed"] = "true"
                    return earlier.accepted
                accepted = await work(store)
                if earlier is None:
                    earlier = await self._remember(store)
                earlier.user_pk, earlier.job_id = accepted.user_pk, accepted.job_id
                earlier.accepted = accepted.ids
                return accepted.ids
        except ServiceError as refusal:
            await self.note(refusal)
            raise

    async def note(self, refusal: ServiceError) -> None:
        """Remember that this try was refused, if its client tries again after such a refusal."""
        if await _to_remember(refusal, self._rates, self._key_pk):
            await self.refused()

    async def refused(self) -> None:
        """Remember that this try was refused."""
        try:
            async with self._database.write() as store:
                await self._alone(store)
                if await self._earlier(store) is None:
                    await self._remember(store)
        except Exception:  # the refusal stands; its next try may be given an equal call's pictures
            log.exception("a refusal could not be noted")

    async def _alone(self, store: Store) -> None:
        await store.alone(f"tries {self._scope} {self._fingerprint}")

    async def _earlier(self, store: Store) -> IdempotencyKey | None:
        """The request that this is a further try of, from now on taken up by it."""
        if not self._tries:
            return None
        return await store.idempotency.take_up(
            self._scope, self._fingerprint, self._tries, TRIED_AGAIN_WITHIN_S
        )

    async def _remember(self, store: Store) -> IdempotencyKey:
        record = IdempotencyKey(
            caller=self._scope,
            key=f"try {new_id()}",
            fingerprint=self._fingerprint,
            accepted={},
            tries=self._tries,
        )
        await store.idempotency.add(record)
        return record


async def _tries(
    request: Request,
    response: Response,
    once: OnceDep,
    tries: Annotated[
        str | None,
        Header(
            alias=_COUNT,
            description="How often the client has tried before; OpenAI's clients send it.",
        ),
    ] = None,
) -> Once | Tries:
    """By the Idempotency-Key where there is one, else by what the client says of its tries."""
    count = 0 if tries is None else _count(tries)
    if once.has_key or count is None:
        return once
    return await _tries_of(request, response, count)


def _count(header: str) -> int | None:
    known = header.isascii() and header.isdecimal() and len(header) < 4
    return int(header) if known else None


async def _tries_of(request: Request, response: Response, count: int) -> Tries:
    caller, services = known_caller(request), services_of(request)
    seen = await fingerprint(request, caller.key_pk or "")
    return Tries(response, caller, services, seen, count)


class TriedRoute(ProtectedRoute):
    """A route of OpenAI's clients: what comes too often is refused there, and that is noted too."""

    async def admit(self, request: Request) -> None:
        """Only a key's tries that say their number are noted: all other refusals cost nothing."""
        try:
            await super().admit(request)
        except ServiceError as refusal:
            caller: Caller | None = getattr(request.state, "caller", None)
            count = _count(request.headers.get(_COUNT, ""))
            by_key = caller is not None and caller.key_pk is not None
            is_try = request.method == "POST" and "idempotency-key" not in request.headers
            if by_key and is_try and count is not None:
                await _note_early(request, refusal, count)
            raise


async def _note_early(request: Request, refusal: ServiceError, count: int) -> None:
    """The body is read only where there is room for the note."""
    key_pk = known_caller(request).key_pk or ""
    if not await _to_remember(refusal, services_of(request).rates, key_pk):
        return
    try:
        tries = await _tries_of(request, Response(), count)
    except Exception:  # a body that is too long, or that nobody sends any more
        return
    await tries.refused()


async def _to_remember(refusal: ServiceError, rates: RateLimits, key_pk: str) -> bool:
    """Whether its client tries again, and there is room to remember that.

    Where there is none it is told not to: its next try could not be told from an equal call's.
    """
    if isinstance(refusal, DatabaseAway):
        return False
    if refusal.status not in _TRIED_AGAIN and refusal.status < 500:
        return False
    if await rates.may_remember_try(key_pk):
        return True
    refusal.headers.update(DO_NOT_RETRY)
    return False


TriesDep = Annotated[Once | Tries, Depends(_tries)]
