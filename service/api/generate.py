"""Asking for pictures."""

from typing import Any

from fastapi import APIRouter, Response

from service.api.deps import CallerDep, ProtectedRoute, ServicesDep, WaitDep
from service.api.idempotency import Accepted, Once, OnceDep
from service.api.jobs import shown, wait_for_end
from service.api.queueing import check_room, generate_job
from service.api.rates import check_gpu_quota
from service.api.schemas import MAX_SEED, GenerateIn, JobOut
from service.api.services import Services
from service.api.uploads import check_storage
from service.core.auth import Caller
from service.core.errors import ServiceError, invalid
from service.core.generation import Found, pin
from service.core.messages import TERMINAL
from service.infra.repositories import Store
from service.infra.tables import Job, JobSubject

router = APIRouter(tags=["generate"], route_class=ProtectedRoute)


@router.post(
    "/generate",
    status_code=202,
    response_model_exclude_none=True,
    responses={200: {"model": JobOut, "description": "The job has ended."}},
)
async def generate(
    body: GenerateIn,
    response: Response,
    caller: CallerDep,
    services: ServicesDep,
    wait_s: WaitDep,
    once: OnceDep,
) -> JobOut:
    """Make pictures, in a person's taste if one is named."""
    job_id, made = await accept(body, caller, services, once, waits=wait_s is not None)
    if made is not None and wait_s is None:  # nobody has to be asked how it stands
        response.headers["Location"] = f"/jobs/{job_id}"
        return await shown(services, made)
    return await _present(services, response, job_id, wait_s)


async def accept(
    body: GenerateIn, caller: Caller, services: Services, once: Once, *, waits: bool
) -> tuple[str, Job | None]:
    """The id of the job that makes these pictures, which is queued when this returns.

    With the job, unless an earlier request with the same Idempotency-Key made it.
    """
    request = _request(body, services)
    made: list[Job] = []

    async def work(store: Store) -> Accepted:
        job = await _queue(store, services, caller, body, request, waits=waits)
        made.append(job)
        return Accepted({"job_id": job.id}, user_pk=job.user_pk, job_id=job.id)

    accepted = await once.do(work)
    services.signals.ring()
    return str(accepted["job_id"]), made[0] if made else None


def _request(body: GenerateIn, services: Services) -> dict[str, Any]:
    """The body with every default filled in; raises 422 for sizes that the preset has not."""
    offered = services.capabilities
    for name in ("width", "height"):
        side = getattr(body, name)
        if side is not None and side not in offered.sides_px:
            allowed = ", ".join(map(str, offered.sides_px))
            raise invalid(f"/{name}", f"preset {offered.preset} makes sides of {allowed} px")
    seed = body.seed if body.seed is not None else min(services.new_seed(), MAX_SEED - body.n)
    return {
        **body.model_dump(exclude={"user_id", "blend", "seed", "width", "height"}),
        "user_ids": [user_id for user_id, _ in _subjects(body)],
        "blended": body.blend is not None,
        "seed": seed,
        "width": body.width or offered.default_side_px,
        "height": body.height or offered.default_side_px,
    }


def _subjects(body: GenerateIn) -> list[tuple[str, float]]:
    if body.user_id is not None:
        return [(body.user_id, 1.0)]
    return [(part.user_id, part.weight) for part in body.blend or ()]


async def _queue(
    store: Store,
    services: Services,
    caller: Caller,
    body: GenerateIn,
    request: dict[str, Any],
    *,
    waits: bool,
) -> Job:
    """Pin whose profiles are used, and queue the job with them."""
    owner_pk = None
    if caller.own_user_id is not None:
        owner_pk = (await store.users.get_or_create(caller.tenant, caller.own_user_id)).pk
    if not all(caller.may_use(user_id) for user_id, _ in _subjects(body)):
        raise ServiceError(404, "user_not_found")
    people = {
        user_id: await store.users.get_or_create(caller.tenant, user_id)
        for user_id in sorted(user_id for user_id, _ in _subjects(body))
    }
    if owner_pk is None and len(people) == 1:
        (owner_pk,) = (user.pk for user in people.values())
    queue = await store.jobs.queue("generate", caller.tenant, owner_pk)
    subjects: list[JobSubject] = []
    reasons: list[str] = []
    for position, (user_id, weight) in enumerate(_subjects(body)):
        user_pk = people[user_id].pk
        found = Found(queue.ready_pk, queue.encoding_pk)
        if user_pk != owner_pk:
            found = Found(*await store.profiles.newest_pks(user_pk))
        pinned = pin(found, waits=waits)
        if pinned.reason is not None:
            reasons.append(pinned.reason)
        subjects.append(
            JobSubject(
                position=position, user_pk=user_pk, profile_pk=pinned.profile_pk, weight=weight
            )
        )
    check_room(queue, services.limits, "generate", caller)
    if owner_pk is not None:
        await check_gpu_quota(services.rates, owner_pk)
    request = {**request, "reason": reasons[0] if reasons else None}
    await check_storage(services)
    job = generate_job(
        caller.tenant, owner_pk, request, turn=queue.turn, expiry_s=services.limits.job_expiry_s
    )
    return await store.jobs.add(job, subjects)


async def _present(
    services: Services, response: Response, job_id: str, wait_s: float | None
) -> JobOut:
    if wait_s is not None:
        response.headers["Preference-Applied"] = f"wait={wait_s:.0f}"
        await wait_for_end(services, job_id, wait_s)
    async with services.database.read() as store:
        job = await store.jobs.get(job_id)
    if job is None:
        raise ServiceError(404, "job_not_found")  # erased meanwhile
    response.headers["Location"] = f"/jobs/{job.id}"
    response.status_code = 200 if job.status in TERMINAL and wait_s is not None else 202
    return await shown(services, job)
