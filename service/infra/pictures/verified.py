"""A picture's bytes, which are the ones that were written or none."""

import asyncio
import errno
import hashlib

from service.core.ports import ImageStore
from service.infra.sql.tables import Image


async def read_verified(images: ImageStore, image: Image) -> bytes:
    """The bytes of a row. Raises OSError when the store has none, has others, or fails."""
    data = await images.get(image.key)
    if await asyncio.to_thread(_sha256, data) != image.sha256:
        raise OSError(errno.EIO, "the stored bytes are not the ones that were written", image.id)
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
