"""A picture by its id, for those who may see it."""

import logging

from ppd_model.pictures.writing import Format, recoded
from service.actions.limits import STORAGE_RETRY_AFTER
from service.api.services import Services
from service.core.auth import Caller
from service.core.errors import ServiceError
from service.infra.pictures.verified import read_verified
from service.infra.sql.store import Store
from service.infra.sql.tables import Image

log = logging.getLogger("ppd.images")


async def seen_image(store: Store, caller: Caller, image_id: str) -> Image:
    """A picture that the caller may see; 404 for every other, 410 for one that was taken down."""
    image = await store.images.find(caller.tenant, image_id)
    of = None
    if caller.own_user_id is not None:
        of = await store.users.find(caller.tenant, caller.own_user_id)
        if of is None or (image is not None and image.user_pk != of.pk):
            raise ServiceError(404, "image_not_found")
    if image is None:
        of_pk = None if of is None else of.pk
        gone = await store.reports.was_taken_down(caller.tenant, image_id, of_pk)
        raise ServiceError(*((410, "image_taken_down") if gone else (404, "image_not_found")))
    return image


async def stored_bytes(services: Services, image: Image) -> bytes:
    """A picture's file; raises 503 unless it is what was written."""
    try:
        return await read_verified(services.images, image)
    except OSError as error:
        log.error("image %s could not be read: %s", image.id, error)
        raise ServiceError(503, "storage", headers=STORAGE_RETRY_AFTER) from error


def in_format(services: Services, data: bytes, format: Format) -> bytes:
    """The picture in another format, signed anew where pictures are: the signature is the file's.

    Raises 503 where it cannot be signed now.
    """
    file, origin = recoded(data, format)
    if services.signer is None or origin is None:
        return file
    try:
        return services.signer.signed(file, format, origin)
    except OSError as error:
        log.error("%s", error)
        raise ServiceError(503, "signing", headers=STORAGE_RETRY_AFTER) from error
