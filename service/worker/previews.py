"""Previews of a job's pictures on their way to those who watch: made small, and not too often."""

import asyncio
import base64
import io
import logging
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.core.messages import MAX_PREVIEW_CHARS, PREVIEW_PREFIX
from service.core.ports import Preview
from service.infra.ending import end

log = logging.getLogger("ppd.worker")

_LEAST_INTERVAL_S = 0.2
_QUALITIES = (75, 55, 35)
_LEAST_SIDE_PX = 16


class Previews:
    """Sends a job's previews until the end of the block, five times a second at most.

    What comes meanwhile takes the place of what was not sent yet of the same picture. A preview
    that cannot be encoded is left out.
    """

    def __init__(self, send: Callable[[Preview, str], None]) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._newest: dict[int, Preview] = {}
        self._sending: asyncio.Task[None] | None = None
        self._not_before_s = 0.0
        self._open = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._open = False
        if self._sending is not None:
            await end(self._sending)

    def offer(self, preview: Preview) -> None:
        """Take this preview, in any thread, which has nothing to do but to hand it over."""
        self._loop.call_soon_threadsafe(self._take, preview)

    def _take(self, preview: Preview) -> None:
        if not self._open:
            return
        self._newest[preview.index] = preview
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_all())

    async def _send_all(self) -> None:
        while self._newest:
            await asyncio.sleep(max(0.0, self._not_before_s - self._loop.time()))
            self._not_before_s = self._loop.time() + _LEAST_INTERVAL_S
            chosen, self._newest = self._newest, {}
            for preview in chosen.values():
                try:
                    image = await asyncio.to_thread(data_url, preview.image_HWC)
                except Exception as error:
                    log.warning("a preview could not be encoded: %s", type(error).__name__)
                    continue
                if image is not None:
                    self._send(preview, image)


def data_url(image_HWC: NDArray[np.uint8]) -> str | None:
    """A picture as a data: URL of a JPEG, smaller until it is no longer than previews may be."""
    picture = Image.fromarray(image_HWC, "RGB")
    while min(picture.size) >= _LEAST_SIDE_PX:
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=quality)
            url = PREVIEW_PREFIX + base64.b64encode(buffer.getvalue()).decode()
            if len(url) <= MAX_PREVIEW_CHARS:
                return url
        picture = picture.resize((picture.width // 2, picture.height // 2))
    return None
