"""Pictures as clients send them in JSON, and what each of them may be."""

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from ppd_model.pictures.apart import Allowance
from ppd_model.pictures.reading import KEPT_SIDE_PX, Limits

UPLOADS = Limits(min_side_px=16, max_side_px=8192, max_pixels=25_000_000, kept_side_px=KEPT_SIDE_PX)
"""Photographs as phones take them, kept as large as the encoder sees."""
OF_ONE_REQUEST = Allowance(pixels=100_000_000, seconds=30, memory_bytes=3 * 2**29)
MAX_PICTURE_BYTES = 12 * 2**20
MAX_BYTES_OF_ONE_REQUEST = 24 * 2**20
"""Two of the largest, or eight photographs of 3 MiB; a body has a third more, in base64."""

_DATA_URL = re.compile(rb"data:[^,]*,", re.IGNORECASE)
_SPACES = b" \t\r\n\f\v"
_OTHER_ALPHABET = bytes.maketrans(b"-_", b"+/")


def from_base64(text: str) -> bytes:
    """The bytes of base64 as clients write it: as a data URL, wrapped, URL-safe, without padding.

    Raises ValueError, with a message for the sender.
    """
    try:
        written = text.encode("ascii")
    except UnicodeEncodeError:
        raise ValueError("is not base64") from None
    if written[:8].lower().startswith((b"http://", b"https://")):
        raise ValueError("is an address: pictures are sent themselves, in base64")
    if (start := _DATA_URL.match(written)) is not None:
        if not start[0].lower().rstrip(b", ").endswith(b";base64"):
            raise ValueError("is a data URL without base64")
        written = unquote_to_bytes(written[start.end() :])
    written = written.translate(_OTHER_ALPHABET, delete=_SPACES).rstrip(b"=")
    try:
        data = base64.b64decode(written + b"=" * (-len(written) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64") from None
    if not data:
        raise ValueError("is empty")
    return data


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height, in px, of a PNG of our own."""
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
