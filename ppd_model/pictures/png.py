"""PNG files down to what makes their pixels: text is never inflated, a profile within bounds.

Pillow reads every text beside a picture and gives the picture up for one that is too long.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PROFILE_BYTES = 4 * 2**20
"""A longer one is ignored; the largest in use, of printing presses, have some 3 MiB."""

_MAKES_PIXELS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"}
_XMP = b"XML:com.adobe.xmp\0"


def pixels_alone(data: bytes) -> bytes:
    """The same picture without anything beside it."""
    return SIGNATURE + b"".join(whole for name, whole, _ in _chunks(data) if name in _MAKES_PIXELS)


def colour_profile(data: bytes) -> bytes | None:
    """The ICC profile, if it has one that can be inflated within the limit."""
    body = _first(data, b"iCCP")
    if body is None:
        return None
    compressed = body.partition(b"\0")[2][1:]
    try:
        inflater = zlib.decompressobj()
        profile = inflater.decompress(compressed, MAX_PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if inflater.eof else None


def gamma(data: bytes) -> float | None:
    """What the file's values are a power of light with; None where a profile or sRGB says it."""
    if _first(data, b"sRGB") is not None or colour_profile(data) is not None:
        return None
    body = _first(data, b"gAMA")
    return int.from_bytes(body, "big") / 100_000 if body and len(body) == 4 else None


def exif(data: bytes) -> bytes | None:
    return _first(data, b"eXIf")


def xmp(data: bytes) -> bytes | None:
    """The XMP packet, where it is not compressed."""
    for name, _, body in _chunks(data):
        if name == b"iTXt" and body.startswith(_XMP) and body[len(_XMP) : len(_XMP) + 1] == b"\0":
            return body[len(_XMP) :]
    return None


def transparent_value(data: bytes) -> tuple[int, ...] | None:
    """The one value, as it is once it has 8 bits a channel, that means transparent.

    One number for greys and three for RGB; None for a palette, which has its own, and for none.
    Of 16 bits a channel it is the upper eight, as those of the pixels.
    """
    header, key = _first(data, b"IHDR"), _first(data, b"tRNS")
    if header is None or key is None or len(header) < 10:
        return None
    bits, kind = header[8], header[9]
    count = {0: 1, 2: 3}.get(kind)
    if count is None or len(key) != 2 * count:
        return None
    values = struct.unpack(f">{count}H", key)
    return tuple(value >> 8 if bits == 16 else value * 255 // (2**bits - 1) for value in values)


def _first(data: bytes, wanted: bytes) -> bytes | None:
    """The body of the first such chunk before the pixels, or behind them."""
    return next((body for name, _, body in _chunks(data) if name == wanted), None)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, whole chunk and body of each, as far as the last that is there whole."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        name, end = data[at + 4 : at + 8], at + 12 + length
        yield name, data[at:end], data[at + 8 : end - 4]
        if name == b"IEND":
            return
        at = end
