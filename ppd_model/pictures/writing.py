"""Pixels become a file. Equal pixels, format, quality and origin give equal bytes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal, get_args

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from ppd_model.pictures.origin import SOFTWARE, Origin

Format = Literal["png", "jpeg", "webp"]
FORMATS: tuple[Format, ...] = get_args(Format)
DEFAULT_QUALITY = 90
FULL_COLOUR_QUALITY = 90
"""From here on a JPEG keeps colour at every pixel."""

_USER_COMMENT_IS_ASCII = b"ASCII\0\0\0"


@dataclass(frozen=True)
class FileKind:
    """How files of a format are named and declared."""

    media_type: str
    suffix: str


KINDS: dict[Format, FileKind] = {
    "png": FileKind("image/png", ".png"),
    "jpeg": FileKind("image/jpeg", ".jpg"),
    "webp": FileKind("image/webp", ".webp"),
}


def encoded(
    image: Image.Image,
    format: Format = "png",
    quality: int = DEFAULT_QUALITY,
    origin: Origin | None = None,
) -> bytes:
    """An RGB picture's file, which says its origin; without one it says nothing but pixels.

    `quality`, 1 to 100, is that of JPEG and WebP; PNG loses nothing. Raises ValueError for a
    picture that is not RGB.
    """
    if image.mode != "RGB":
        raise ValueError(f"expected a picture in RGB, got {image.mode}")
    buffer = io.BytesIO()
    # A new picture from the pixels alone: saving hands on what an opened one says of itself.
    plain = Image.frombytes("RGB", image.size, image.tobytes())
    plain.save(buffer, format.upper(), **_options(format, quality), **_words(format, origin))
    return buffer.getvalue()


def recoded(
    data: bytes, format: Format, quality: int = DEFAULT_QUALITY
) -> tuple[bytes, Origin | None]:
    """A file that `encoded` made, in another format, and the origin that it says as well."""
    with Image.open(io.BytesIO(data), formats=[each.upper() for each in FORMATS]) as image:
        origin = _origin_of(image)
        return encoded(image.convert("RGB"), format, quality, origin), origin


def _options(format: Format, quality: int) -> dict[str, Any]:
    if format == "png":
        return {"compress_level": 6}
    if format == "webp":
        return {"quality": quality, "method": 4}
    subsampling = "4:4:4" if quality >= FULL_COLOUR_QUALITY else "4:2:0"
    return {"quality": quality, "subsampling": subsampling, "optimize": True}


def _words(format: Format, origin: Origin | None) -> dict[str, Any]:
    if origin is None:
        return {}
    if format == "png":
        text = PngInfo()
        text.add_text("Software", SOFTWARE)
        text.add_text("Comment", origin.as_json)
        text.add_itxt("XML:com.adobe.xmp", origin.as_xmp)
        return {"pnginfo": text}
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = SOFTWARE
    comment = _USER_COMMENT_IS_ASCII + origin.as_json.encode()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    return {"exif": exif.tobytes(), "xmp": origin.as_xmp.encode()}


def _origin_of(image: Image.Image) -> Origin | None:
    comment = image.info.get("Comment")
    if comment is None:
        written = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
        comment = written and written.removeprefix(_USER_COMMENT_IS_ASCII).decode()
    return None if comment is None else Origin.from_json(comment)
