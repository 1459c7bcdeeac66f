"""What there is room for: in the queue, in the image store, and of the models' time."""

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from service.core.auth import BROWSER_TENANT, Caller
from service.core.errors import ServiceError
from service.core.fairness import Queue, Spender, share
from service.core.ports import ImageStore
from service.infra.memory.rate_limits import Allowance, RateLimits
from service.infra.sql.database import Database
from service.infra.sql.repositories.users import Kept

log = logging.getLogger("ppd.images")

STORAGE_RETRY_AFTER = {"Retry-After": "60"}
_RETRY_AFTER = {"Retry-After": "5"}
_SESSIONS_RETRY_AFTER = {"Retry-After": "600"}
_COUNT_EVERY_S = 5.0


@dataclass(frozen=True)
class Limits:
    """How much waits at most, and how long."""

    max_body_bytes: int
    max_upload_body_bytes: int
    """Where pictures may be sent."""
    max_queued_jobs: int
    max_queued_jobs_of_sessions: int
    """Of all browser sessions together: they cost nothing, and keys must find room beside them."""
    max_queued_jobs_per_caller: int
    max_queued_jobs_per_session: int
    max_uploads_per_user: int
    max_upload_bytes_per_user: int
    max_people_of_sessions: int
    max_rows_of_sessions: int
    """Of jobs, versions of profiles and remembered requests together."""
    max_picture_bytes_of_sessions: int
    min_free_bytes: int
    job_expiry_s: float
    session_max_age_s: int
    openai_wait_s: float
    """How long POST /v1/images/generations waits for its job."""


def check_queue(queue: Queue, limits: Limits, kind: str, caller: Caller) -> None:
    """Raise 503 when the queue of this kind is full, 429 when this caller has its share of it.

    All sessions together are one caller among others, and share their places by address, then by
    session: both cost nothing.
    """
    limit = limits.max_queued_jobs
    mine = queue.of_user if caller.is_session else queue.of_tenant
    cap = limits.max_queued_jobs_per_caller if kind == "generate" else limit
    if caller.is_session:
        cap = limits.max_queued_jobs_per_session
        limit = min(limit, queue.waiting - queue.of_tenant + limits.max_queued_jobs_of_sessions)
    if queue.waiting >= limit:
        raise ServiceError(503, "queue_full", headers=_RETRY_AFTER)
    of_address = queue.of_lane if caller.is_session else 0
    if mine >= share(limit, queue.waiting, cap) or of_address >= share(limit, queue.waiting, limit):
        raise too_many_jobs()


def too_many_jobs() -> ServiceError:
    return ServiceError(429, "too_many_jobs", headers=_RETRY_AFTER)


async def check_storage(images: ImageStore) -> None:
    """Raise 503 when the image store would take no picture now, or does not answer."""
    try:
        full = await images.full()
    except OSError as error:
        log.error("the image store does not answer: %s", error)
        raise ServiceError(
            503, "storage", "The image store does not answer.", headers=STORAGE_RETRY_AFTER
        ) from error
    if full:
        raise ServiceError(503, "storage_full", headers=STORAGE_RETRY_AFTER)


class Room:
    """Whether anything more is stored: on the database's disk, and of what sessions keep in all.

    Sessions cost nothing, so all of them together have ceilings, beside those of each; and those of
    one address keep no more than what they leave for others. What they keep is counted every few
    seconds, so it may pass a ceiling by what came in between.
    """

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits
        self._counting = asyncio.Lock()
        self._kept: dict[str | None, Kept] = {}
        """Of all sessions, and of the addresses that were asked for since that was counted."""
        self._counted_s = -math.inf

    async def check(self, caller: Caller) -> None:
        """Raise 503 where this caller may add nothing now, 429 where it is its address's share.

        Deletions are always taken.
        """
        free_bytes = self._database.free_bytes()
        if free_bytes is not None and free_bytes < self._limits.min_free_bytes:
            raise ServiceError(503, "storage_full", headers=STORAGE_RETRY_AFTER)
        if not caller.is_session:
            return
        ceilings, kept = self._ceilings(), await self._kept_now(None)
        if any(held >= most for held, most in zip(kept, ceilings, strict=True)):
            raise ServiceError(503, "sessions_full", headers=_SESSIONS_RETRY_AFTER)
        if all(2 * held < most for held, most in zip(kept, ceilings, strict=True)):
            return
        mine = await self._kept_now(caller.lane)
        for held, all_held, most in zip(mine, kept, ceilings, strict=True):
            if held and held >= most - all_held:
                raise ServiceError(429, "address_full", headers=_SESSIONS_RETRY_AFTER)

    async def _kept_now(self, lane: str | None) -> Kept:
        async with self._counting:
            if time.monotonic() - self._counted_s > _COUNT_EVERY_S:
                self._kept.clear()
                self._counted_s = time.monotonic()
            if lane not in self._kept:
                async with self._database.read() as store:
                    self._kept[lane] = await store.users.kept_by(BROWSER_TENANT, lane)
            return self._kept[lane]

    def _ceilings(self) -> Kept:
        limits = self._limits
        return Kept(
            limits.max_people_of_sessions,
            limits.max_rows_of_sessions,
            limits.max_picture_bytes_of_sessions,
        )


async def check_gpu_quota(rates: RateLimits, accounts: Sequence[Spender]) -> None:
    """Raise 429 when the models have worked on one of these accounts as long as they may."""
    for left in await asyncio.gather(*map(rates.gpu_seconds, accounts)):
        if left.over:
            told = {**rate_headers(left), **retry_after(left)}
            raise ServiceError(429, "gpu_quota", headers=told)


def rate_headers(allowance: Allowance) -> dict[str, str]:
    """What an answer says of a limit that was counted."""
    return {
        "X-RateLimit-Limit": str(allowance.limit),
        "X-RateLimit-Remaining": str(allowance.remaining),
        "X-RateLimit-Reset": str(math.ceil(time.time() + allowance.reset_s)),
    }


def retry_after(allowance: Allowance) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(allowance.reset_s)))}
