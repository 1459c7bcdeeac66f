"""Whether the process lives, and whether it can do work."""

from fastapi import APIRouter
from starlette.responses import JSONResponse

from service.api.deps import ServicesDep, StrictRoute

router = APIRouter(prefix="/health", tags=["health"], route_class=StrictRoute)


@router.get("/live")
async def live() -> dict[str, str]:
    """The process answers. Touches nothing else."""
    return {"status": "ok"}


@router.get("/ready", responses={503: {"description": "Not ready; `reason` says why."}})
async def ready(services: ServicesDep) -> JSONResponse:
    """A generation would be accepted, and a worker can run it."""
    reason = await services.worker.why_not_ready()
    if reason is None:
        try:
            async with services.database.read() as store:
                if await store.jobs.queued("generate") >= services.limits.max_queued_jobs:
                    reason = "the queue is full"
        except Exception as error:
            reason = f"the database does not answer: {type(error).__name__}"
    if reason is None:
        try:
            if await services.images.full():
                reason = "the image store has no room for further pictures"
        except OSError as error:
            reason = f"the image store does not answer: {type(error).__name__}"
    if reason is not None:
        return JSONResponse({"status": "not ready", "reason": reason}, status_code=503)
    impaired = await services.worker.impaired()
    return JSONResponse({"status": "ready", **({"impaired": impaired} if impaired else {})})
