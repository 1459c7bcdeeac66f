"""A mark in the image store: processes that read another one keep pictures elsewhere."""

import secrets

from service.core.ports import ImageStore

_KEY = "store.id"


async def store_mark(images: ImageStore) -> str:
    """The mark of this store, 32 hex digits, made when there is none. Raises OSError.

    Of two processes that make it at once one is overwritten: what is there afterwards counts, and
    whoever compares looks again later.
    """
    try:
        return (await images.get(_KEY)).decode()
    except FileNotFoundError:
        await images.put(_KEY, secrets.token_hex(16).encode())
        return (await images.get(_KEY)).decode()
