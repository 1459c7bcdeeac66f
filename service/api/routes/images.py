"""Stored pictures."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from ppd_model.pictures.writing import KINDS, Format
from service.api.deps import CallerDep, ProtectedRoute, ServicesDep
from service.api.http.negotiation import chosen
from service.api.image_lookup import in_format, seen_image, stored_bytes
from service.api.services import Services
from service.infra.pictures.keys import format_of
from service.infra.sql.tables import Image

log = logging.getLogger("ppd.images")
router = APIRouter(tags=["images"], route_class=ProtectedRoute)

PICTURE: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {kind.media_type: {} for kind in KINDS.values()},
        "description": "The picture, in the format it was made in unless Accept rules that out.",
    }
}
MAX_AGE_S = 3600
"""So long a browser shows a picture without asking: one that was erased is gone from it then."""
_FORMATS: dict[str, Format] = {kind.media_type: format for format, kind in KINDS.items()}
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="ppd-formats")
"""Apart from the threads that read pictures, which those who ask for another format must not
hold up."""


@router.get("/images/{image_id}", response_class=Response, responses=PICTURE)
async def get_image(
    image_id: Annotated[str, Path(max_length=64)],
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
) -> Response:
    """A picture."""
    async with services.database.read() as store:
        image = await seen_image(store, caller, image_id)
    return await picture(services, image, request, max_age_s=MAX_AGE_S)


async def picture(
    services: Services, image: Image, request: Request, *, max_age_s: int
) -> Response:
    """The answer that holds a picture; 304 for a client that has it, 503 if it was not kept."""
    stored = format_of(image.key)
    offers = sorted(_FORMATS, key=lambda media_type: _FORMATS[media_type] != stored)
    media_type = chosen(",".join(request.headers.getlist("accept")), offers)
    format = _FORMATS[media_type]
    headers = {
        "ETag": f'"{image.sha256}"' if format == stored else f'W/"{image.sha256}-{format}"',
        "Cache-Control": f"private, max-age={max_age_s}",
        "Content-Disposition": f'inline; filename="{image.id}{KINDS[format].suffix}"',
        "Vary": "Accept",
    }
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    data = await stored_bytes(services, image)
    if format != stored:
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(_threads, in_format, services, data, format)
    return Response(data, media_type=media_type, headers=headers)
