"""A picture's bytes, which are the ones that were written or none."""

import asyncio
import errno
import hashlib

from service.core.ports import ImageStore
from service.infra.sql.tables import Image


class DamagedPicture(OSError):  # noqa: N818 - as FileNotFoundError's kind
    """What is stored is not what was written."""


async def read_verified(images: ImageStore, image: Image) -> bytes:
    """The bytes of a row.

    Raises FileNotFoundError when the store has none, DamagedPicture when it has others, and OSError
    when it fails.
    """
    data = await images.get(image.key)
    if await asyncio.to_thread(_sha256, data) != image.sha256:
        raise DamagedPicture(
            errno.EIO, "the stored bytes are not the ones that were written", image.id
        )
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
