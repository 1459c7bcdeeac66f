"""Opaque cursors: where the next page begins."""

import base64
import binascii
import json

from service.core.errors import invalid


def encode_cursor(*parts: str | int) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).rstrip(b"=").decode()


def decode_cursor(cursor: str, *types: type[str] | type[int]) -> list[str | int]:
    """The parts again; raises 422 for what `encode_cursor` did not make."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        parts = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise invalid("", "query parameter cursor: was not given out by this service") from None
    matches = isinstance(parts, list) and len(parts) == len(types)
    if not matches or not all(type(p) is t for p, t in zip(parts, types, strict=True)):
        raise invalid("", "query parameter cursor: was not given out by this service")
    return list(parts)
