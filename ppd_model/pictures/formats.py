"""Which format bytes are in, by how they begin; and how each that is read here is opened."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable

from PIL import (
    AvifImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from ppd_model.pictures import png

_STARTS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\0\0\1\0": "ICO",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"<svg": "SVG",
    b"<?xml": "XML (SVG)",
    b"<html": "HTML",
    b"<!doctype html": "HTML",
    b"\x1aE\xdf\xa3": "WebM video",
    b"FLV": "Flash video",
    b"v/1\1": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"DDS ": "DDS",
    b"qoif": "QOI",
    b"P4\n": "PBM",
    b"P5\n": "PGM",
    b"P6\n": "PPM",
}
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm"), "HEIC"),
    **dict.fromkeys((b"mif1", b"msf1", b"mif2"), "HEIC"),
    b"crx ": "Canon raw",
}


def format_of(data: bytes) -> str | None:
    """The format's name; None for bytes that begin like nothing that is known here."""
    if data[4:8] == b"ftyp":
        return _iso_media(data)
    if data[:4] == b"RIFF":
        return "WebP" if data[8:12] == b"WEBP" else "AVI or WAV"
    begins = data[:16]
    for start, name in _STARTS.items():
        if begins.startswith(start):
            return name
    text = data[:256].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((name for start, name in _STARTS.items() if text.startswith(start)), None)


def openers() -> dict[str, Callable[[bytes], ImageFile.ImageFile]]:
    """How to open a format's bytes without decoding its pixels; of all formats that are read.

    Each is opened as what it is, by its own class: nothing is guessed, and what other code
    registered with Pillow changes nothing.
    """
    return {
        "PNG": lambda data: PngImagePlugin.PngImageFile(io.BytesIO(png.pixels_alone(data))),
        "JPEG": lambda data: JpegImagePlugin.JpegImageFile(io.BytesIO(data)),
        "WebP": lambda data: WebPImagePlugin.WebPImageFile(io.BytesIO(data)),
        "GIF": lambda data: GifImagePlugin.GifImageFile(io.BytesIO(data)),
        "AVIF": lambda data: AvifImagePlugin.AvifImageFile(io.BytesIO(data)),
        **({"HEIC": heif} if (heif := _heif_opener()) else {}),
    }


def size_before_opening(format: str, data: bytes) -> tuple[int, int] | None:
    """Sides in px of what takes memory for its pixels as soon as it is opened; else None."""
    if format != "WebP":
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    sides = int.from_bytes(data[26:28], "little"), int.from_bytes(data[28:30], "little")
    return sides[0] & 0x3FFF, sides[1] & 0x3FFF


def _iso_media(data: bytes) -> str:
    """By the brands that the file says it is compatible with: AVIF's wins over the general ones."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = [data[8:12], *(data[i : i + 4] for i in range(16, end, 4))]
    names = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    if "AVIF" in names:
        return "AVIF"
    return names[0] if names else "MP4 or QuickTime video"


def _heif_opener() -> Callable[[bytes], ImageFile.ImageFile] | None:
    """None without the extra `heic`. It turns pictures upright by itself."""
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError:
        return None

    def opened(data: bytes) -> ImageFile.ImageFile:
        image: ImageFile.ImageFile = pillow_heif.HeifImageFile(io.BytesIO(data))
        return image

    return opened
