"""What clients of OpenAI's Images API call: the same jobs as POST /generate, waited for."""

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import ValidationError

from service.api.deps import CallerDep, ProtectedRoute, ServicesDep
from service.api.http.openai_errors import OPENAI_ERRORS
from service.api.idempotency import OnceDep
from service.api.openai_schemas import ImagesIn, ImagesOut, ModelOut, ModelsOut, OpenAIImageOut
from service.api.routes.generate import accept
from service.api.routes.images import stored_bytes
from service.api.routes.jobs import wait_for_end
from service.api.routes.signed_pictures import signed_path
from service.api.schemas import GenerateIn
from service.api.services import Services
from service.core.auth import Caller
from service.core.errors import CODES, FieldError, ServiceError
from service.infra.sql.tables import Image, Job

router = APIRouter(
    prefix="/v1", tags=["openai"], route_class=ProtectedRoute, responses=OPENAI_ERRORS
)

_DO_NOT_RETRY = {"x-should-retry": "false"}
"""OpenAI's clients would send the request again, and so pay for another job."""
_THEIR_NAMES = {"/user_id": "/user", "/width": "/size", "/height": "/size"}
_FAILED_STATUS = {"canceled": 409, "expired": 503, "out_of_memory": 503, "deadline_exceeded": 504}
"""By the code of a job that did not succeed; 500 for all others."""


@router.get("/models")
async def list_models(caller: CallerDep, services: ServicesDep) -> ModelsOut:
    """The model that is served."""
    return ModelsOut(data=[ModelOut(id=services.capabilities.preset)])


@router.get("/models/{model}")
async def get_model(
    model: Annotated[str, Path(max_length=128)], caller: CallerDep, services: ServicesDep
) -> ModelOut:
    """One model."""
    if model != services.capabilities.preset:
        raise ServiceError(404, "model_not_found")
    return ModelOut(id=model)


@router.post("/images/generations", response_model_exclude_none=True)
async def generate_images(
    body: ImagesIn,
    request: Request,
    response: Response,
    caller: CallerDep,
    services: ServicesDep,
    once: OnceDep,
) -> ImagesOut:
    """Make pictures, in a person's taste if `user` names one, and wait for them.

    What takes longer than the service waits is 504 and goes on as the job that the message names;
    so does what its client no longer waits for. `url` opens without a key, for an hour.
    """
    if body.model not in (None, services.capabilities.preset):
        fault = FieldError("/model", f"the model here is {services.capabilities.preset}")
        raise ServiceError(404, "model_not_found", errors=(fault,))
    try:
        job_id, _ = await accept(_asked(body), caller, services, once, waits=True)
    except ServiceError as error:
        error.errors = tuple(map(_in_their_names, error.errors))
        raise
    response.headers["Location"] = f"/jobs/{job_id}"
    await wait_for_end(services, job_id, services.limits.openai_wait_s)
    job, images = await _finished(services, caller, job_id)
    data = [
        OpenAIImageOut(b64_json=base64.b64encode(await stored_bytes(services, image)).decode())
        if body.response_format == "b64_json"
        else OpenAIImageOut(url=_address(request, services, image))
        for image in images
    ]
    return ImagesOut(
        created=int(job.created_at.timestamp()),
        data=data,
        size=f"{images[0].width_px}x{images[0].height_px}",
        ppd={"job_id": job.id, **(job.result or {})},
    )


def _asked(body: ImagesIn) -> GenerateIn:
    """The same request in our own words; raises 422 for what no field shows alone."""
    width, height = body.sides_px or (None, None)
    try:
        return GenerateIn(
            prompt=body.prompt,
            user_id=body.user,
            strength=body.strength,
            negative_prompt=body.negative_prompt,
            n=body.n or 1,
            width=width,
            height=height,
            steps=body.steps,
            guidance_scale=body.guidance_scale,
            seed=body.seed,
            fresh=body.fresh,
        )
    except ValidationError as error:
        faults = tuple(_fault(entry) for entry in error.errors(include_input=False))
        raise ServiceError(422, "invalid_request", errors=faults) from None


def _fault(entry: Any) -> FieldError:
    pointer = "".join(f"/{part}" for part in entry["loc"])
    message = entry["msg"].removeprefix("Value error, ")
    return _in_their_names(FieldError(pointer, message))


def _in_their_names(fault: FieldError) -> FieldError:
    return FieldError(_THEIR_NAMES.get(fault.pointer, fault.pointer), fault.message)


async def _finished(services: Services, caller: Caller, job_id: str) -> tuple[Job, list[Image]]:
    """The job and its pictures in order; raises what became of it when it has none."""
    async with services.database.read() as store:
        job = await store.jobs.find(caller.tenant, job_id)
        if job is None:
            raise ServiceError(404, "job_not_found")  # erased meanwhile
        ids = [str(made["url"]).rsplit("/", 1)[-1] for made in (job.result or {}).get("images", ())]
        found = await store.images.by_id(ids)
    here = {"Location": f"/jobs/{job.id}", **_DO_NOT_RETRY}
    if job.status in ("queued", "running"):
        detail = f"{CODES['still_running']} See GET /jobs/{job.id}."
        raise ServiceError(504, "still_running", detail, headers=here)
    if job.status != "succeeded":
        code = job.error_code or job.status
        status = _FAILED_STATUS.get(code, 500)
        detail = f"{job.error_detail or CODES[code]} See GET /jobs/{job.id}."
        raise ServiceError(status, code, detail, headers=here)
    if any(image_id not in found for image_id in ids):
        raise ServiceError(404, "image_not_found")  # erased meanwhile
    return job, [found[image_id] for image_id in ids]


def _address(request: Request, services: Services, image: Image) -> str:
    return str(request.base_url).rstrip("/") + signed_path(services, image.tenant, image.id)
