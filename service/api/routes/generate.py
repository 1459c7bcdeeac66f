"""Asking for pictures."""

from typing import Any

from fastapi import APIRouter, Request, Response

from ppd_model.pictures.writing import DEFAULT_QUALITY
from service.actions.accepting import Asked, Wish
from service.actions.conditioning import taste_told
from service.actions.moderating import refuse
from service.api.deps import (
    BY_KEY_OR_SESSION,
    ProtectedRoute,
    WaitDep,
    known_caller,
    prefer_wait,
    read_body,
    read_by,
    services_of,
)
from service.api.http.strict_json import StrictRequest
from service.api.idempotency import Accepted, Once, OnceDep, once_of
from service.api.retries import Tries
from service.api.routes.jobs import shown, wait_if_asked, written
from service.api.schemas import MAX_SEED, BlendIn, GenerateIn, JobOut
from service.api.services import Services
from service.core.auth import Caller, named
from service.core.errors import ServiceError, invalid
from service.core.messages import TERMINAL
from service.infra.secrets import key_sha256
from service.infra.sql.jobs.seen import JobSeen
from service.infra.sql.store import Store

router = APIRouter(tags=["generate"], route_class=ProtectedRoute)


async def _read(request: StrictRequest) -> Response:
    body, response = read_body(GenerateIn, request), Response()
    del response.headers["content-length"]  # it only collects headers, as the framework's do
    wait_s = await prefer_wait(request.headers.get("prefer"))
    once = await once_of(request, response, request.headers.get("idempotency-key"))
    return await generate(body, request, response, wait_s, once)


@router.post(
    "/generate",
    status_code=202,
    response_model=JobOut,
    response_model_exclude_none=True,
    openapi_extra=BY_KEY_OR_SESSION,
    responses={200: {"model": JobOut, "description": "The job has ended."}},
)
@read_by(_read)
async def generate(
    body: GenerateIn,
    request: Request,
    response: Response,
    wait_s: WaitDep,
    once: OnceDep,
) -> Response:
    """Make pictures, in a person's taste if one is named."""
    caller, services = known_caller(request), services_of(request)
    job_id, made = await accept(body, caller, services, once, waits=wait_s is not None)
    if made is not None and wait_s is None:  # nobody has to be asked how it stands
        return written(await shown(services, made), 202, {"Location": f"/jobs/{job_id}"})
    return await _present(request, response, caller, job_id, wait_s)


async def accept(
    body: GenerateIn, caller: Caller, services: Services, once: Once | Tries, *, waits: bool
) -> tuple[str, JobSeen | None]:
    """The id of the job that makes these pictures, which is queued when this returns.

    With the job, unless an earlier request with the same Idempotency-Key made it. A request with
    such a key has its transaction to itself: it holds the key, and commits with the key's record.
    """
    asked = _asked(body, caller, services, waits=waits)
    prompt = ("/prompt", body.prompt, "text/plain")
    await refuse(services, "prompt", [prompt], caller.audited_as, caller.tenant)
    accepting = services.accepting
    if not once.has_key:
        job = await accepting.accept(asked)
    else:
        again = await accepting.made_before(asked)
        made: list[JobSeen] = []

        async def work(store: Store) -> Accepted:
            job = None if again is None else await accepting.give(store, asked, again)
            made.append(job or await accepting.alone(store, asked))
            return Accepted({"job_id": made[0].id}, user_pk=made[0].user_pk, job_id=made[0].id)

        job_id = str((await once.do(work))["job_id"])
        if not made:
            return job_id, None
        job = made[0]
    if job.status == "queued":
        services.signals.ring()
    return job.id, job


def _asked(body: GenerateIn, caller: Caller, services: Services, *, waits: bool) -> Asked:
    """Raises 422 for sizes that the preset has not, 404 for people who are not the caller's."""
    request = _request(body, services)
    said = [body, *(body.blend or ())]
    if not all(caller.may_use(one.user_id) for one in said if one.user_id is not None):
        raise ServiceError(404, "user_not_found")
    wishes = tuple(_wish(one, caller.tenant) for one in _parts(body))
    seed, fresh = body.seed is not None, body.fresh
    return Asked(caller, wishes, request, waits, seed, fresh, user_id=body.user_id)


def _request(body: GenerateIn, services: Services) -> dict[str, Any]:
    """The body with every default filled in; raises 422 for what the preset cannot make."""
    offered = services.capabilities
    for name in ("width", "height"):
        side = getattr(body, name)
        if side is not None and side not in offered.sides_px:
            allowed = ", ".join(map(str, offered.sides_px))
            raise invalid(f"/{name}", f"preset {offered.preset} makes sides of {allowed} px")
    vocabulary = offered.vocabulary
    if vocabulary is not None and not vocabulary.reads(body.prompt):
        raise invalid("/prompt", vocabulary.why_unread(body.prompt), "unreadable_prompt")
    seed = body.seed if body.seed is not None else min(services.new_seed(), MAX_SEED - body.n)
    of_people = {"user_id", "taste", "taste_code", "blend"}
    used = [_told(part) for part in _parts(body)]
    return {
        **body.model_dump(exclude={*of_people, "seed", "width", "height", "fresh"}),
        "user_ids": [one["user_id"] for one in used if "user_id" in one],
        **({"tastes": used} if any(one.keys() != {"user_id"} for one in used) else {}),
        "blended": body.blend is not None,
        "seed": seed,
        "width": body.width or offered.default_side_px,
        "height": body.height or offered.default_side_px,
        "steps": body.steps or offered.sampling.steps,
        "solver": body.solver or offered.sampling.solver,
        "guidance_interval": list(body.guidance_interval or offered.sampling.guidance_interval),
        "quality": body.quality or DEFAULT_QUALITY,
    }


def _parts(body: GenerateIn) -> list[GenerateIn | BlendIn]:
    """All that name a taste."""
    return [body] if body.user_id or body.taste_code else [*(body.blend or ())]


def _wish(part: GenerateIn | BlendIn, tenant: str) -> Wish:
    weight = part.weight if isinstance(part, BlendIn) else 1.0
    if part.taste_code is not None:
        return Wish(("", key_sha256(part.taste_code)), weight)
    assert part.user_id is not None, "bodies name a user or a code"
    return Wish((tenant, named(part.user_id, part.taste)), weight)


def _told(part: GenerateIn | BlendIn) -> dict[str, Any]:
    if part.taste_code is not None:
        return {"shared_taste": True}
    return {"user_id": part.user_id, **taste_told(part.taste)}


async def _present(
    request: Request, response: Response, caller: Caller, job_id: str, wait_s: float | None
) -> Response:
    services = services_of(request)
    if wait_s is not None and not await wait_if_asked(request, response, caller, job_id, wait_s):
        wait_s = None
    job = await services.jobs.visible(caller, job_id)  # 404: erased meanwhile
    response.headers["Location"] = f"/jobs/{job.id}"
    status = 200 if job.status in TERMINAL and wait_s is not None else 202
    return written(await shown(services, job), status, response.headers)
