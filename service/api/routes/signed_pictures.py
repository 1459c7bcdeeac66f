"""Addresses of pictures that open without a key, for an hour: as OpenAI's do."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.responses import Response

from service.api.deps import ServicesDep, StrictRoute
from service.api.routes.images import PICTURE, picture
from service.api.services import Services
from service.core.errors import ServiceError

MAX_AGE_S = 3600
_PATH = "/images/signed/"

router = APIRouter(tags=["images"], route_class=StrictRoute)


@router.get(_PATH + "{token}", response_class=Response, responses=PICTURE)
async def get_signed_image(
    token: Annotated[str, Path(max_length=512)], request: Request, services: ServicesDep
) -> Response:
    """A picture by the address that `POST /v1/images/generations` gave; for an hour."""
    tenant, image_id = _read(services, token)
    async with services.database.read() as store:
        image = await store.images.find(tenant, image_id)
    if image is None:
        raise ServiceError(404, "image_not_found")
    answer = await picture(services, image, request, max_age_s=MAX_AGE_S)
    if services.cors_origins:  # pages of other sites may show it, too
        answer.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    return answer


def signed_path(services: Services, tenant: str, image_id: str) -> str:
    """Where the picture is for an hour, for whoever knows the address."""
    return _PATH + str(_signer(services).dumps([tenant, image_id]))


def _read(services: Services, token: str) -> tuple[str, str]:
    """Tenant and id of a picture; raises 404 when we did not sign them, or longer ago than that."""
    try:
        tenant, image_id = _signer(services).loads(token, max_age=MAX_AGE_S)
    except BadSignature:
        detail = "This address was not given out by the service, or has expired."
        raise ServiceError(404, "image_not_found", detail) from None
    return str(tenant), str(image_id)


def _signer(services: Services) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(services.session_secret, salt="ppd-picture-1")
