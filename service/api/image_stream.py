"""Pictures for OpenAI's clients as server-sent events: previews while they are made, then each."""

import asyncio
import base64
import io
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from PIL import Image as PillowImage

from ppd_model.pictures.writing import encoded
from service.api.http.following import follow_to_end
from service.api.http.openai_errors import error_body
from service.api.http.streams import until
from service.api.openai_schemas import CompletedOut, ImageFormat, PartialImageOut
from service.api.services import Services
from service.core.errors import ServiceError
from service.core.messages import PREVIEW_PREFIX, JobEvent
from service.infra.sql.tables import now

log = logging.getLogger("ppd.http")


@dataclass(frozen=True)
class StreamLooks:
    """What a stream is to look like. `partial_images`: at most so many previews of each picture."""

    partial_images: int
    format: ImageFormat
    quality: int
    size_px: tuple[int, int]
    count: int


async def image_stream(
    services: Services,
    job_id: str,
    asked: StreamLooks,
    wait_s: float,
    finished: Callable[[], Awaitable[Sequence[CompletedOut]]],
) -> AsyncIterator[bytes]:
    """The events of a job to its end. An error is an event too: the answer has begun long since.

    `finished` gives the pictures, or raises what became of them.
    """
    previews = Previews(asked)
    ends_s = asyncio.get_running_loop().time() + wait_s
    try:
        try:
            following = follow_to_end(services.database, services.events, job_id)
            async with aclosing(until(following, ends_s)) as events:
                async for event in events:
                    if event is None:
                        yield KEEPALIVE_COMMENT
                    elif event.kind == "preview" and previews.take(event):
                        yield _sse(await asyncio.to_thread(previews.shown, event))
        except TimeoutError:
            pass  # `finished` says that it goes on
        for picture in await finished():
            yield _sse(picture)
    except ServiceError as error:
        yield _error(error)
    except Exception:
        log.exception("a stream of pictures failed")
        yield _error(ServiceError(500, "internal"))


class Previews:
    """Which of a job's previews a client is sent: as many as it wants, spread over the steps."""

    def __init__(self, asked: StreamLooks) -> None:
        self._asked = asked
        self._taken: Counter[int] = Counter()

    def take(self, event: JobEvent) -> bool:
        """Whether this one is sent: the first at or after the next of the steps that are due."""
        index, step, steps = (event.data[name] for name in ("index", "step", "steps"))
        wanted = self._asked.partial_images
        due = self._taken[index] + 1
        if due > wanted or step * (wanted + 1) < due * steps:
            return False
        self._taken[index] += 1
        return True

    def shown(self, event: JobEvent) -> PartialImageOut:
        """A preview that was just taken, in the size and format that the picture will have."""
        asked, index = self._asked, event.data["index"]
        data = base64.b64decode(event.data["image"].removeprefix(PREVIEW_PREFIX))
        with PillowImage.open(io.BytesIO(data), formats=("JPEG",)) as small:
            large = small.convert("RGB").resize(asked.size_px, PillowImage.Resampling.BICUBIC)
        width, height = asked.size_px
        return PartialImageOut(
            b64_json=base64.b64encode(encoded(large, asked.format, asked.quality)).decode(),
            created_at=int(now().timestamp()),
            output_format=asked.format,
            size=f"{width}x{height}",
            image_index=index if asked.count > 1 else None,
            partial_image_index=self._taken[index] - 1,
        )


def _sse(event: PartialImageOut | CompletedOut) -> bytes:
    return format_sse_event(event=event.type, data_str=event.model_dump_json(exclude_none=True))


def _error(error: ServiceError) -> bytes:
    body = {"type": "error", **error_body(error)}
    return format_sse_event(event="error", data_str=json.dumps(body))
