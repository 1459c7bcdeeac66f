"""Whether the process lives, and whether it can do work."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse

from service.api.deps import ServicesDep, StrictRoute
from service.api.services import Services
from service.infra.ending import in_time

router = APIRouter(prefix="/health", tags=["health"], route_class=StrictRoute)

_PATIENCE_S = 2.0


@router.get("/live")
async def live() -> dict[str, str]:
    """The process answers. Touches nothing else."""
    return {"status": "ok"}


@router.get("/ready", responses={503: {"description": "Not ready; `reasons` say why."}})
async def ready(services: ServicesDep) -> JSONResponse:
    """A generation would be accepted, and a worker can run it.

    Everything is looked at at the same time and given two seconds, so that all that is missing is
    named; `reason` is the first of `reasons`.
    """
    found = await asyncio.gather(
        _look("the database", services.worker.why_not_ready()),
        _look("the database", _database(services)),
        _look("the image store", _image_store(services)),
    )
    reasons = list(dict.fromkeys(reason for reason in found if reason is not None))
    if reasons:
        body = {"status": "not ready", "reason": reasons[0], "reasons": reasons}
        return JSONResponse(body, status_code=503)
    impaired = await _look("Redis", services.worker.impaired())
    return JSONResponse({"status": "ready", **({"impaired": impaired} if impaired else {})})


async def _look(store: str, look: Coroutine[Any, Any, str | None]) -> str | None:
    """What a look finds missing: the whole store when it does not answer."""
    try:
        return await in_time(look, _PATIENCE_S)
    except Exception as error:
        return f"{store} does not answer: {type(error).__name__}"


async def _database(services: Services) -> str | None:
    """What is missing of it: places in the queue, its disk's room, its lock."""
    full = await _queue(services)
    if full is not None:
        return full
    free_bytes = services.database.free_bytes()
    if free_bytes is not None and free_bytes < services.limits.min_free_bytes:
        return "the database's disk has no room for more"
    return await services.database.why_unwritable()


async def _queue(services: Services) -> str | None:
    async with services.database.read() as store:
        waiting = await store.jobs.queued("generate")
    return "the queue is full" if waiting >= services.limits.max_queued_jobs else None


async def _image_store(services: Services) -> str | None:
    full = await services.images.full()
    return "the image store has no room for further pictures" if full else None
