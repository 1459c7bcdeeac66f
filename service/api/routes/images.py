"""Stored pictures."""

import logging
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from service.actions.limits import STORAGE_RETRY_AFTER
from service.api.deps import CallerDep, ProtectedRoute, ServicesDep
from service.api.services import Services
from service.core.errors import ServiceError
from service.infra.pictures.verified import read_verified
from service.infra.sql.tables import Image

log = logging.getLogger("ppd.images")
router = APIRouter(tags=["images"], route_class=ProtectedRoute)

_YEAR_S = 365 * 24 * 3600


@router.get(
    "/images/{image_id}",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}, "description": "The picture."}},
)
async def get_image(
    image_id: Annotated[str, Path(max_length=64)],
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
) -> Response:
    """A picture's PNG."""
    async with services.database.read() as store:
        image = await store.images.find(caller.tenant, image_id)
        if image is not None and caller.own_user_id is not None:
            user = await store.users.find(caller.tenant, caller.own_user_id)
            if user is None or image.user_pk != user.pk:
                image = None
    if image is None:
        raise ServiceError(404, "image_not_found")
    return await picture(services, image, request, max_age_s=_YEAR_S)


async def picture(
    services: Services, image: Image, request: Request, *, max_age_s: int
) -> Response:
    """The answer that holds a picture; 304 for a client that has it, 503 if it was not kept."""
    headers = {
        "ETag": f'"{image.sha256}"',
        "Cache-Control": f"private, max-age={max_age_s}, immutable",
        "Content-Disposition": f'inline; filename="{image.id}.png"',
    }
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    data = await stored_bytes(services, image)
    return Response(data, media_type="image/png", headers=headers)


async def stored_bytes(services: Services, image: Image) -> bytes:
    """A picture's PNG; raises 503 unless it is what was written."""
    try:
        return await read_verified(services.images, image)
    except OSError as error:
        log.error("image %s could not be read: %s", image.id, error)
        raise ServiceError(503, "storage", headers=STORAGE_RETRY_AFTER) from error
