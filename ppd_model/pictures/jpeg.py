"""What is told of a JPEG by its markers, found as libjpeg finds them."""

import re
from collections.abc import Iterator

_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_SCAN, _END = 0xDA, 0xD9
_WITHOUT_BODY = frozenset({0x01, *range(0xD0, 0xD9)})


def scans(data: bytes) -> int:
    """How many scans the picture has; one in its thumbnail or after its end does not count."""
    return sum(marker == _SCAN for marker in _markers(data))


def _markers(data: bytes) -> Iterator[int]:
    place = 0
    while found := _MARKER.search(data, place):
        (marker,) = found[1]
        if marker == _END:
            return
        yield marker
        place = found.end()
        if marker not in _WITHOUT_BODY:
            place += int.from_bytes(data[place : place + 2], "big")
