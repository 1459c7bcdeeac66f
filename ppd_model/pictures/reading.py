"""START HERE for pictures that others made: bytes become pixels, as the picture looks.

Upright, in sRGB, on white, 8 bits a channel, the first of several frames. Whoever reads a picture
reads it by this, so that a picture is the same pixels in training and in serving.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import ExifTags, Image, ImageFile

from ppd_model.pictures import jpeg, png
from ppd_model.pictures.colour import on_white
from ppd_model.pictures.formats import format_of, openers, size_before_opening

KEPT_SIDE_PX = 768
"""People's own pictures and those of data sets are scaled down to this for the encoder."""
MIN_SCALED_SIDE_PX = 16

MAX_JPEG_SCANS = 64
"""A progressive JPEG has about ten. Each costs a pass over the picture and next to no bytes."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF's orientation, what makes a picture upright; all other values leave it."""


class PictureError(ValueError):
    """Bytes that are not read; the message names their format and says why."""


@dataclass(frozen=True)
class Limits:
    """What a picture may be, looked at before its pixels are decoded.

    With `kept_side_px` a larger one is scaled down until both sides fit. Whether it is or not, one
    that would be left with a side of fewer than `MIN_SCALED_SIDE_PX` is refused.
    """

    min_side_px: int = 1
    max_side_px: int = 16_384
    max_pixels: int = 2**27
    kept_side_px: int | None = None


ANY = Limits()
KEPT = Limits(kept_side_px=KEPT_SIDE_PX)


def read_picture(data: bytes | PictureError, limits: Limits = ANY) -> Image.Image:
    """The picture in RGB, without anything it said of itself.

    Raises PictureError: also the one that stands in the place of bytes that could not be had.
    """
    if isinstance(data, PictureError):
        raise data
    return opened(data, limits).read()


@dataclass(frozen=True)
class Opened:
    """A picture within its limits whose pixels are not decoded yet."""

    format: str
    size: tuple[int, int]
    image: ImageFile.ImageFile
    data: bytes
    limits: Limits

    def read(self) -> Image.Image:
        """The same as `read_picture`."""
        kept = kept_size(self.size, self.limits)
        with _damage_named(self.format):
            if kept != self.size:  # a JPEG may be decoded smaller at once, by 2, 4 or 8
                self.image.draft(None, (2 * kept[0], 2 * kept[1]))
            covered = self.image.tile[0].extents if self.format == "GIF" else None
            self.image.load()
            plain, turn = _as_it_looks(self.image, self.format, self.data)
            if covered is not None:
                plain = _white_around(plain, covered)
        if plain.size != kept:
            plain = plain.resize(kept, Image.Resampling.LANCZOS, reducing_gap=2.0)
        if turn is not None:
            plain = plain.transpose(turn)
        # A new picture from the pixels alone: conversions hand metadata on.
        return Image.frombytes("RGB", plain.size, plain.tobytes())


def opened(data: bytes, limits: Limits = ANY) -> Opened:
    """The picture by its header. Raises PictureError."""
    format = format_of(data)
    if format is None:
        raise PictureError("is no picture of a known format")
    opener = openers().get(format)
    if opener is None:
        raise PictureError(f"is {format}, which is not read here; {', '.join(openers())} are")
    if format == "JPEG" and jpeg.scans(data) > MAX_JPEG_SCANS:
        raise PictureError(f"is a JPEG of more than {MAX_JPEG_SCANS} scans")
    with _damage_named(format):
        size = size_before_opening(format, data)
        if size is not None:
            _check(size, format, limits)
        image = opener(data)
        _check(image.size, format, limits)
    return Opened(format, image.size, image, data, limits)


def kept_size(size: tuple[int, int], limits: Limits) -> tuple[int, int]:
    """Width and height in px of what is kept of a picture of this size."""
    return size if limits.kept_side_px is None else _fitting(size, limits.kept_side_px)


def _fitting(size: tuple[int, int], side_px: int) -> tuple[int, int]:
    if max(size) <= side_px:
        return size
    scale = side_px / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _check(size: tuple[int, int], format: str, limits: Limits) -> None:
    width, height = size
    is_what = f"is a {format} of {width} x {height} px"
    least, most = limits.min_side_px, limits.max_side_px
    if not all(least <= side <= most for side in size):
        raise PictureError(f"{is_what}; it needs sides of {least} to {most} px")
    if width * height > limits.max_pixels:
        raise PictureError(f"{is_what}; more than {limits.max_pixels} pixels are too many")
    scaled = _fitting(size, limits.kept_side_px or KEPT_SIDE_PX)
    if scaled != size and min(scaled) < MIN_SCALED_SIDE_PX:
        raise PictureError(
            f"{is_what}, which is too narrow: made smaller to {scaled[0]} x {scaled[1]} px its"
            f" shorter side has fewer than {MIN_SCALED_SIDE_PX}"
        )


def _as_it_looks(
    image: Image.Image, format: str, data: bytes
) -> tuple[Image.Image, Image.Transpose | None]:
    """In RGB, and the turn that makes it upright, if it needs one."""
    profile = image.info.get("icc_profile")
    gamma = transparent = None
    if format == "PNG":
        profile, gamma = png.colour_profile(data), png.gamma(data)
        transparent = png.transparent_value(data)
        image.info |= {"exif": png.exif(data) or b"", "xmp": png.xmp(data) or b""}
    return on_white(image, profile, gamma, transparent), _TURNS.get(_orientation(image) or 1)


def _white_around(image: Image.Image, covered: tuple[int, int, int, int]) -> Image.Image:
    """A GIF's first frame may be smaller than the picture."""
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image.crop(covered), covered)
    return canvas


def _orientation(image: Image.Image) -> int | None:
    """By EXIF, or where that says nothing by XMP; None for what cannot be read."""
    try:
        said = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # of the many ways in which EXIF is damaged none says how a picture stands
        return None
    return said if isinstance(said, int) else None


@contextmanager
def _damage_named(format: str) -> Iterator[None]:
    try:
        yield
    except PictureError:
        raise
    except Exception as error:  # decoders raise whatever they stumble over
        raise PictureError(f"is a damaged {format}: {_fault(error)}") from error


def _fault(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it takes too much memory"
    said = str(error).lower()
    if isinstance(error, EOFError) or any(word in said for word in ("truncated", "incomplete")):
        return "it is cut short"
    return "its pixels cannot be decoded"
