"""People's own pictures: read with care, within a quota, stored whole or not at all."""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from ppd_model.pictures.apart import Reading
from ppd_model.pictures.reading import PictureError
from service.actions.gate import place_of
from service.actions.limits import STORAGE_RETRY_AFTER, Limits
from service.actions.moderating import Content
from service.api.schemas import PreferencesIn
from service.api.services import Services
from service.core.auth import Caller
from service.core.errors import FieldError, ServiceError, StorageFull
from service.core.pictures import (
    MAX_BYTES_OF_ONE_REQUEST,
    MAX_PICTURE_BYTES,
    OF_ONE_REQUEST,
    UPLOADS,
    from_base64,
    png_size,
)
from service.core.turns import Path
from service.infra.pictures.keys import upload_key
from service.infra.sql.store import Store
from service.infra.sql.tables import Image, User, new_id

log = logging.getLogger("ppd.images")
_T = TypeVar("_T")

_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="ppd-uploads")
"""Apart from the threads that read and write pictures, which large uploads must not hold up."""


async def clean_uploads(
    services: Services, caller: Caller, user_id: str, body: PreferencesIn
) -> list[list[bytes]]:
    """Both pictures of every answer that brings its own; raises 422 with every fault found.

    Raises 429 or 503 where pictures wait to be read already, as many as may.
    """
    _check_pairs(services, body)
    uploads: list[list[bytes]] = [[] for _ in body.choices]
    own = sum(choice.images is not None for choice in body.choices)
    if not own:
        return uploads
    texts = {
        f"/choices/{i}/images/{j}": text
        for i, choice in enumerate(body.choices)
        for j, text in enumerate(choice.images or ())
    }
    read = await clean_pictures(services, caller, user_id, texts)
    for i, choice in enumerate(body.choices):
        uploads[i] += [read[f"/choices/{i}/images/{j}"] for j, _ in enumerate(choice.images or ())]
    return uploads


async def clean_pictures(
    services: Services, caller: Caller, user_id: str, texts: Mapping[str, str]
) -> dict[str, bytes]:
    """Plain PNGs of pictures in base64, by their JSON pointers; raises as `clean_uploads`."""
    await refuse_too_many(services, caller, user_id, len(texts))
    path = place_of(caller, user_id)
    with services.gate.request_with_pictures(path):
        sent, faults = await _in_thread(_decoded, texts)
        outcomes = await _read_in_turn(services, path, [*sent.values()])
    read: dict[str, bytes] = {}
    for pointer, outcome in zip(sent, outcomes, strict=True):
        if isinstance(outcome, PictureError):
            faults.append(FieldError(pointer, str(outcome)))
        else:
            read[pointer] = outcome
    if faults:
        raise ServiceError(422, "invalid_image", errors=tuple(faults))
    return read


async def _read_in_turn(
    services: Services, path: Path, files: Sequence[bytes]
) -> list[bytes | PictureError]:
    """Of each picture a plain PNG, or why it is not read; each waits for its turn at the gate."""
    outcomes: list[bytes | PictureError] = []
    beginning = _begun(services.readers.begin, files, UPLOADS, OF_ONE_REQUEST)
    try:
        reading = await _ended(beginning)
    except asyncio.CancelledError:
        beginning.add_done_callback(_close_unused)
        raise
    with reading:
        for index, size in enumerate(reading.sizes):
            if isinstance(size, PictureError):
                outcomes.append(size)
                continue
            async with services.gate.turn(path, size):
                outcomes.append(await _in_thread(reading.read, index))
    return outcomes


async def _in_thread(function: Callable[..., _T], *about: Any) -> _T:
    """In a thread, which goes on when the request is canceled: so does what it holds."""
    return await _ended(_begun(function, *about))


def _begun(function: Callable[..., _T], *about: Any) -> "asyncio.Future[_T]":
    return asyncio.get_running_loop().run_in_executor(_threads, partial(function, *about))


async def _ended(running: "asyncio.Future[_T]") -> _T:
    try:
        return await asyncio.shield(running)
    finally:
        await asyncio.wait((running,))


def _close_unused(beginning: "asyncio.Future[Reading]") -> None:
    """The request went away before it had what was begun for it."""
    if beginning.exception() is None:
        beginning.result().close()


async def refuse_too_many(services: Services, caller: Caller, user_id: str, more: int) -> None:
    """Raise 409 before anything is read where a person has no room for so many pictures."""
    async with services.database.read() as store:
        user = await store.users.find(caller.tenant, user_id)
        count, size_bytes = (0, 0) if user is None else await store.images.uploads(user.pk)
    limits = services.limits
    if count + more > limits.max_uploads_per_user or size_bytes > limits.max_upload_bytes_per_user:
        raise ServiceError(409, "upload_quota")


def contents(body: PreferencesIn, sent: Sequence[Sequence[bytes]]) -> list[Content]:
    """What people send of their own, for moderation: captions, and pictures as they are stored."""
    own = [(i, choice) for i, choice in enumerate(body.choices) if choice.images is not None]
    captions: list[Content] = [
        (f"/choices/{i}/caption", choice.caption or "", "text/plain") for i, choice in own
    ]
    pictures: list[Content] = [
        (f"/choices/{i}/images/{j}", data, "image/png")
        for i, _ in own
        for j, data in enumerate(sent[i])
    ]
    return captions + pictures


async def check_quota(store: Store, limits: Limits, user: User, new: Sequence[Image]) -> None:
    """Raise 409 when these pictures would be more, or larger, than a person's may be in all."""
    if not new:
        return
    count, size_bytes = await store.images.uploads(user.person_pk)
    count += len(new)
    size_bytes += sum(image.size_bytes for image in new)
    if count > limits.max_uploads_per_user or size_bytes > limits.max_upload_bytes_per_user:
        raise ServiceError(409, "upload_quota")


async def put_pictures(
    services: Services, images: Sequence[Image], pictures: Sequence[bytes]
) -> None:
    """Store the bytes of these rows; raises 503 when the image store cannot."""
    try:
        for image, data in zip(images, pictures, strict=True):
            await services.images.put(image.key, data)
    except StorageFull as error:
        raise ServiceError(503, "storage_full", headers=STORAGE_RETRY_AFTER) from error
    except OSError as error:
        log.exception("an upload could not be stored")
        raise ServiceError(
            503, "storage", "A picture could not be stored.", headers=STORAGE_RETRY_AFTER
        ) from error


def image_row(user: User, data: bytes) -> Image:
    image_id, sha256 = new_id(), hashlib.sha256(data).hexdigest()
    width_px, height_px = png_size(data)
    return Image(
        id=image_id,
        tenant=user.tenant,
        user_pk=user.person_pk,
        kind="upload",
        key=upload_key(user.person_pk, image_id, sha256),
        sha256=sha256,
        size_bytes=len(data),
        width_px=width_px,
        height_px=height_px,
    )


def _check_pairs(services: Services, body: PreferencesIn) -> None:
    for i, choice in enumerate(body.choices):
        if choice.pair_id is not None and services.pool.get(choice.pair_id) is None:
            raise ServiceError(
                422,
                "pair_not_found",
                errors=(FieldError(f"/choices/{i}/pair_id", "the pool has no such pair"),),
            )


def _decoded(texts: Mapping[str, str]) -> tuple[dict[str, bytes], list[FieldError]]:
    """The files that were sent, by their JSON pointers, and what cannot be one."""
    faults: list[FieldError] = []
    sent: dict[str, bytes] = {}
    for pointer, text in texts.items():
        try:
            sent[pointer] = from_base64(text)
        except ValueError as error:
            faults.append(FieldError(pointer, str(error)))
    _check_bytes(sent)
    return sent, faults


def _check_bytes(sent: Mapping[str, bytes]) -> None:
    """Raise 413 for files that are larger than they may be, alone or together."""
    sizes = {place: len(data) for place, data in sent.items()}
    too_large = [
        FieldError(pointer, f"has {size} bytes; a picture has at most {MAX_PICTURE_BYTES}")
        for pointer, size in sizes.items()
        if size > MAX_PICTURE_BYTES
    ]
    together = sum(sizes.values())
    if together > MAX_BYTES_OF_ONE_REQUEST:
        most = f"those of one request have at most {MAX_BYTES_OF_ONE_REQUEST}"
        of = next(iter(sent)).split("/")[1]
        too_large.append(FieldError(f"/{of}", f"has pictures of {together} bytes; {most}"))
    if too_large:
        raise ServiceError(413, "picture_too_large", errors=tuple(too_large))
