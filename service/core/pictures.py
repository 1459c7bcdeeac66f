"""Pictures that people send: checked by their header first, then made anew without metadata."""

import base64
import binascii
import io
import warnings

from PIL import Image, UnidentifiedImageError

from ppd_model.pictures.writing import encoded

MIN_SIDE_PX = 16
MAX_SIDE_PX = 2048
STORED_SIDE_PX = 768
"""Larger uploads are scaled down to this: the encoder sees no more than that."""

MAX_JPEG_SCANS = 64
"""A progressive JPEG has about ten. Each costs a pass over the picture and next to no bytes."""

_FORMATS = ("PNG", "JPEG", "WEBP")


def clean_upload(text: str, max_bytes: int) -> bytes:
    """Decode a base64 picture and give it back as a plain RGB PNG.

    An animated picture gives its first frame; transparency is laid on white. Metadata (EXIF,
    text, profiles) is left behind. Raises ValueError, with a message for the sender, for
    anything that is not a PNG, JPEG or WebP with sides of 16 to 2048 px.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64") from None
    if len(data) > max_bytes:
        raise ValueError(f"is larger than {max_bytes} bytes")
    if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise ValueError(f"is a JPEG of more than {MAX_JPEG_SCANS} scans")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                _check_sides(image.size)
                image.load()
                plain = _on_white(image)
    except _SideError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _SideError from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, MemoryError):
        raise ValueError("is not a readable PNG, JPEG or WebP picture") from None
    plain.thumbnail((STORED_SIDE_PX, STORED_SIDE_PX), Image.Resampling.LANCZOS)
    return encoded(plain)


class _SideError(ValueError):
    def __init__(self) -> None:
        super().__init__(f"needs sides of {MIN_SIDE_PX} to {MAX_SIDE_PX} px")


def _check_sides(size: tuple[int, int]) -> None:
    if not all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in size):
        raise _SideError


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        mixed = Image.alpha_composite(white, rgba).convert("RGB")
    else:
        mixed = image.convert("RGB")
    # A new picture from the pixels alone: `convert` hands metadata on.
    return Image.frombytes("RGB", mixed.size, mixed.tobytes())


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height, in px, of a PNG that `encoded` made."""
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
