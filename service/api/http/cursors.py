"""Opaque cursors: where the next page begins."""

import base64
import binascii
import json
from datetime import datetime, timedelta

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


def encode_place(at: datetime, row_id: str) -> str:
    """The place of a row in a list that is ordered by time, then by id."""
    return encode_cursor(at.isoformat(), row_id)


def decode_place(cursor: str | None) -> tuple[datetime, str] | None:
    """The place again; raises 422 for what `encode_place` did not make."""
    if cursor is None:
        return None
    at_text, row_id = map(str, decode_cursor(cursor, str, str))
    try:
        at = datetime.fromisoformat(at_text)
    except ValueError:
        raise invalid("", "query parameter cursor: is not one of ours") from None
    if at.utcoffset() != timedelta(0) or not row_id.isalnum():
        raise invalid("", "query parameter cursor: is not one of ours")
    return at, row_id
