"""The pool of quiz pairs: the same for everybody."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse, JSONResponse

from service.api.deps import CallerDep, ProtectedRoute, ServicesDep, StrictRoute
from service.api.http.cursors import decode_cursor, encode_cursor
from service.api.schemas import PairImageOut, PairOut, PairsOut
from service.core.errors import ServiceError
from service.core.pool import Pair, pair_url

router = APIRouter(tags=["pairs"], route_class=ProtectedRoute)
public = APIRouter(tags=["pairs"], route_class=StrictRoute)

_MEDIA_TYPES = {".webp": "image/webp", ".png": "image/png", ".jpg": "image/jpeg"}
_CACHE = {"Cache-Control": "public, max-age=86400"}


@router.get("/pairs")
async def list_pairs(
    caller: CallerDep,
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=256)] = None,
) -> PairsOut:
    """The pool, page by page."""
    start = 0
    if cursor is not None:
        (start,) = (int(part) for part in decode_cursor(cursor, int))
    pairs = services.pool.pairs
    end = max(0, start) + limit
    page = pairs[max(0, start) : end]
    following = encode_cursor(end) if end < len(pairs) else None
    return PairsOut(results=[pair_out(pair) for pair in page], next=following)


@public.get("/pairs/images/{file}", response_class=FileResponse)
async def pair_image(file: str, services: ServicesDep, request: Request) -> FileResponse:
    """A picture of a pair. Generic, so it needs no key and may be cached."""
    if not services.pool.has_file(file):
        raise ServiceError(404, "image_not_found")
    path = services.pool.images_dir / file
    media_type = _MEDIA_TYPES.get(path.suffix, "application/octet-stream")
    return FileResponse(path, media_type=media_type, headers=_CACHE)


@public.get("/vocabulary")
async def vocabulary(services: ServicesDep) -> JSONResponse:
    """The words that the preset knows, for hints while somebody types."""
    return JSONResponse(dict(services.pool.vocabulary), headers=_CACHE)


def pair_out(pair: Pair) -> PairOut:
    return PairOut(
        pair_id=pair.pair_id,
        caption=pair.caption,
        images=[PairImageOut(url=pair_url(i.file), alt=i.alt) for i in pair.images],
    )


router.include_router(public)
