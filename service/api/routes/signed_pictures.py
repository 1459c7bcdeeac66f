"""Addresses of pictures that open without a key, for an hour: as OpenAI's do."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.responses import Response

from service.api.deps import CountedRoute, ServicesDep
from service.api.routes.images import PICTURE, picture
from service.api.services import Services
from service.core.errors import ServiceError
from service.infra.sql.tables import now

MAX_AGE_S = 3600
_PATH = "/images/signed/"

router = APIRouter(tags=["images"], route_class=CountedRoute)


@router.get(_PATH + "{token}", response_class=Response, responses=PICTURE)
async def get_signed_image(
    token: Annotated[str, Path(max_length=512)], request: Request, services: ServicesDep
) -> Response:
    """A picture by the address that `POST /v1/images/generations` gave; for an hour."""
    tenant, image_id, left_s = _read(services, token)
    async with services.database.read() as store:
        image = await store.images.find(tenant, image_id)
    if image is None:
        raise ServiceError(404, "image_not_found")
    answer = await picture(services, image, request, max_age_s=left_s)
    answer.headers["Cross-Origin-Resource-Policy"] = "cross-origin"  # whoever has it may show it
    return answer


def signed_path(services: Services, tenant: str, image_id: str) -> str:
    """Where the picture is for an hour, for whoever knows the address."""
    return _PATH + str(_signer(services).dumps([tenant, image_id]))


def _read(services: Services, token: str) -> tuple[str, str, int]:
    """Tenant and id of a picture, and how many seconds the address is still good for.

    Raises 404 when we did not sign them, or too long ago.
    """
    try:
        signed, at = _signer(services).loads(token, max_age=MAX_AGE_S, return_timestamp=True)
        tenant, image_id = signed
    except BadSignature:
        detail = "This address was not given out by the service, or has expired."
        raise ServiceError(404, "image_not_found", detail) from None
    left_s = MAX_AGE_S - int((now() - at).total_seconds())
    return str(tenant), str(image_id), max(0, left_s)


def _signer(services: Services) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(services.session_secret, salt="ppd-picture-1")
