"""What clients of OpenAI's Images API call: the same jobs as POST /generate, waited for."""

import base64
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from ppd_model.pictures.writing import DEFAULT_QUALITY
from service.actions.limits import STORAGE_RETRY_AFTER
from service.api.deps import CallerDep, ServicesDep
from service.api.http.openai_errors import OPENAI_ERRORS
from service.api.image_lookup import stored_bytes
from service.api.image_stream import StreamLooks, image_stream
from service.api.openai_schemas import (
    CompletedOut,
    ImagesIn,
    ImagesOut,
    JobIn,
    ModelOut,
    ModelsOut,
    OpenAIImageOut,
    UsageOut,
    usage_out,
)
from service.api.retries import DO_NOT_RETRY, TriedRoute, TriesDep
from service.api.routes.generate import accept
from service.api.routes.jobs import told_result, wait_for_end
from service.api.routes.signed_pictures import signed_path
from service.api.services import Services
from service.core.auth import Caller
from service.core.errors import CODES, FieldError, ServiceError, invalid
from service.infra.sql.tables import Image, Job

router = APIRouter(prefix="/v1", tags=["openai"], route_class=TriedRoute, responses=OPENAI_ERRORS)

_THEIR_NAMES = {"/user_id": "/user", "/width": "/size", "/height": "/size"}
_FAILED_STATUS = {
    "canceled": 409, "expired": 503, "out_of_memory": 503, "deadline_exceeded": 504,
    "content_refused": 400, "moderation_unavailable": 503, "storage_full": 503,
}  # fmt: skip
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


async def _stream_place(
    request: Request, caller: CallerDep, services: ServicesDep, tries: TriesDep
) -> AsyncIterator[None]:
    """A place for the stream, or for the wait, until it ends."""
    is_stream = (await request.json()).get("stream") is True
    places = services.streams if is_stream else services.waits
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(places.hold(caller.scope))
        except ServiceError as refusal:
            await tries.note(refusal)
            raise
        yield


@router.post(
    "/images/generations",
    response_model=ImagesOut,
    response_model_exclude_none=True,
    responses={200: {"content": {"text/event-stream": {}}}},
    dependencies=[Depends(_stream_place)],
)
async def generate_images(
    body: ImagesIn,
    request: Request,
    response: Response,
    caller: CallerDep,
    services: ServicesDep,
    tries: TriesDep,
) -> ImagesOut | StreamingResponse:
    """Make pictures, in a person's taste if `user` names one, and wait for them.

    What takes longer than the service waits is 504 and goes on as the job that the message names;
    so does what its client no longer waits for. A further try of OpenAI's clients takes up the
    first one's job. `url` opens without a key, for an hour. With `stream` the answer is events
    `image_generation.partial_image`, of previews, and `image_generation.completed`, of pictures.
    """
    asked = _asked(body, services)
    try:
        job_id, _ = await accept(asked, caller, services, tries, waits=True)
    except ServiceError as error:
        error.errors = tuple(map(_in_their_names, error.errors))
        raise
    response.headers["Location"] = f"/jobs/{job_id}"
    wait_s = services.limits.openai_wait_s
    if body.stream:
        stream = _streamed(body, asked, caller, services, job_id, wait_s)
        headers = {**response.headers, "X-Accel-Buffering": "no", "Cache-Control": "no-store"}
        return StreamingResponse(stream, headers=headers, media_type="text/event-stream")
    await wait_for_end(request, job_id, wait_s)
    job, images = await _finished(services, caller, job_id)
    data = [
        OpenAIImageOut(url=_address(request, services, image))
        if body.response_format == "url"
        else OpenAIImageOut(b64_json=await _base64(services, image))
        for image in images
    ]
    return ImagesOut(
        created=int(job.created_at.timestamp()),
        data=data,
        output_format=body.file_format,
        size=_size(images[0]),
        usage=_usage(job),
        ppd=_told(job, body, images[0]),
    )


def _streamed(
    body: ImagesIn,
    asked: JobIn,
    caller: Caller,
    services: Services,
    job_id: str,
    wait_s: float,
) -> AsyncIterator[bytes]:
    async def pictures() -> list[CompletedOut]:
        job, images = await _finished(services, caller, job_id)
        return [
            CompletedOut(
                b64_json=await _base64(services, image),
                created_at=int((job.finished_at or job.created_at).timestamp()),
                output_format=body.file_format,
                size=_size(image),
                image_index=position if len(images) > 1 else None,
                usage=_usage(job, position),
                ppd=_told(job, body, image),
            )
            for position, image in enumerate(images)
        ]

    side_px = services.capabilities.default_side_px
    looks = StreamLooks(
        partial_images=body.partial_images or 0,
        format=body.file_format,
        quality=body.file_quality or DEFAULT_QUALITY,
        size_px=(asked.width or side_px, asked.height or side_px),
        count=asked.n,
    )
    return image_stream(services, job_id, looks, wait_s, pictures)


async def _base64(services: Services, image: Image) -> str:
    return base64.b64encode(await stored_bytes(services, image)).decode()


def _size(image: Image) -> str:
    return f"{image.width_px}x{image.height_px}"


def _told(job: Job, body: ImagesIn, image: Image) -> dict[str, Any]:
    """The job and its result; with a word where another size was made than was asked for."""
    told: dict[str, Any] = {"job_id": job.id, **(told_result(job) or {})}
    if body.sides_px not in (None, (image.width_px, image.height_px)):
        detail = f"{body.size} is not made here: this is the nearest size that is."
        told["warnings"] = [*told.get("warnings", ()), {"code": "size_changed", "detail": detail}]
    return told


def _usage(job: Job, position: int | None = None) -> UsageOut | None:
    """What the job took, or the share of one of its pictures: the prompt was read for the first.

    None for pictures that were made before this was counted.
    """
    result = job.result or {}
    if "usage" not in result:
        return None
    read, made = result["usage"]["text_tokens"], result["usage"]["latent_tokens"]
    if position is None:
        return usage_out(read, made)
    return usage_out(read if position == 0 else 0, made // len(result["images"]))


def _asked(body: ImagesIn, services: Services) -> JobIn:
    """The same request in our own words; raises 422 for what no field shows alone."""
    offered = services.capabilities
    if body.model not in (None, offered.preset):
        fault = FieldError("/model", f"the model here is {offered.preset}")
        raise ServiceError(404, "model_not_found", errors=(fault,))
    if body.stream and body.response_format == "url":
        raise invalid("/response_format", "a stream carries the pictures themselves: b64_json")
    width, height = body.sides_px or (None, None)
    if width is not None and height is not None and not services.exact_sizes:
        width, height = offered.nearest_side_px(width), offered.nearest_side_px(height)
    try:
        return JobIn(
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
            format=body.file_format,
            quality=body.file_quality,
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
    here = {"Location": f"/jobs/{job.id}", **DO_NOT_RETRY}
    if job.status in ("queued", "running"):
        detail = f"{CODES['still_running']} See GET /jobs/{job.id}."
        raise ServiceError(504, "still_running", detail, headers=here)
    if job.status != "succeeded":
        code = job.error_code or job.status
        status = _FAILED_STATUS.get(code, 500)
        detail = f"{job.error_detail or CODES[code]} See GET /jobs/{job.id}."
        later = STORAGE_RETRY_AFTER if status == 503 else {}
        raise ServiceError(status, code, detail, headers={**here, **later})
    if any(image_id not in found for image_id in ids):
        raise ServiceError(404, "image_not_found")  # erased meanwhile
    return job, [found[image_id] for image_id in ids]


def _address(request: Request, services: Services, image: Image) -> str:
    base = services.public_url or str(request.base_url).rstrip("/")
    return base + signed_path(services, image.tenant, image.id)
