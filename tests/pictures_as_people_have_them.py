"""Pictures of many kinds, with what whoever sees them sees; and kinds that nobody can read here.

Every one that is read is `SIZE` when it is seen upright: its left half one colour, its right half
another.
"""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

RED, BLUE, WHITE = (220, 30, 40), (30, 60, 200), (255, 255, 255)
SIZE = (64, 32)
UPRIGHT_AGAIN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""By EXIF's orientation, what a picture went through that is to be turned back."""


@dataclass(frozen=True)
class Seen:
    """A file, and its colours, each channel within so much."""

    data: bytes
    left: tuple[int, ...] = RED
    right: tuple[int, ...] = BLUE
    within: int = 0
    size: tuple[int, int] = SIZE


def looks(left: tuple[int, ...] = RED, right: tuple[int, ...] = BLUE) -> Image.Image:
    """Left half one colour, right half another."""
    picture = Image.new("RGB", SIZE, left)
    picture.paste(right, (SIZE[0] // 2, 0, *SIZE))
    return picture


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunk(png: bytes, name: bytes, body: bytes) -> bytes:
    """A PNG with one more chunk, behind its header."""
    return png[:33] + chunk(name, body) + png[33:]


def profile_bytes(profile: Any) -> bytes:
    return ImageCms.ImageCmsProfile(profile).tobytes()


def swapped_profile() -> bytes:
    """sRGB with the primaries red and blue exchanged."""
    profile = bytearray(profile_bytes(ImageCms.createProfile("sRGB")))
    entries = {}
    for i in range(struct.unpack(">I", profile[128:132])[0]):
        at = 132 + 12 * i
        entries[bytes(profile[at : at + 4])] = at, bytes(profile[at + 4 : at + 12])
    (red, red_place), (blue, blue_place) = entries[b"rXYZ"], entries[b"bXYZ"]
    profile[red + 4 : red + 12], profile[blue + 4 : blue + 12] = blue_place, red_place
    return bytes(profile)


def exchanged(image: Image.Image) -> Image.Image:
    """Red for blue and blue for red, as a picture is stored that has `swapped_profile`."""
    return Image.merge("RGB", image.split()[::-1])


def half_clear() -> Image.Image:
    """Its right half shows what is behind it."""
    image = looks().convert("RGBA")
    image.putalpha(
        Image.fromarray(np.where(np.arange(64) < 32, 255, 0)[None].repeat(32, 0).astype(np.uint8))
    )
    return image


def samples() -> dict[str, Seen]:
    """By what is special about them."""
    png = saved(looks())
    others = [looks(BLUE, RED), looks(WHITE, RED)]
    inflates = b"Comment\0\0" + zlib.compress(b" " * 1_300_000, 9)
    deep = np.zeros((32, 64), np.uint16)
    deep[:, :32], deep[:, 32:] = 0x3000, 0xB000
    exif = Image.Exif()
    exif[0x0132] = "2026:07:01 12:00:00"
    thumbnail = b"Exif\0\0" + exif.tobytes()[6:] + saved(looks(BLUE, RED).resize((16, 8)), "JPEG")
    fine: dict[str, Any] = {"quality": 95, "subsampling": 0}
    return {
        "PNG": Seen(png),
        "JPEG": Seen(saved(looks(), "JPEG", **fine), within=12),
        "WebP": Seen(saved(looks(), "WEBP", lossless=True)),
        "GIF": Seen(saved(looks(), "GIF")),
        "AVIF": Seen(saved(looks(), "AVIF", quality=95), within=16),
        **{
            f"JPEG, turned, {way}": Seen(turned(way, "JPEG", **fine), within=12)
            for way in UPRIGHT_AGAIN
        },
        "WebP, turned": Seen(turned(8, "WEBP", lossless=True)),
        "PNG, turned": Seen(turned(6, "PNG")),
        "PNG, 16 bits of grey": Seen(saved(Image.fromarray(deep)), (48,) * 3, (176,) * 3, within=2),
        "PNG, grey": Seen(saved(looks((9,) * 3, (180,) * 3).convert("L")), (9,) * 3, (180,) * 3),
        "PNG, sRGB's own profile": Seen(
            saved(looks(), icc_profile=profile_bytes(ImageCms.createProfile("sRGB")))
        ),
        "PNG, other colours": Seen(
            saved(exchanged(looks()), icc_profile=swapped_profile()), within=10
        ),
        "JPEG, CMYK": Seen(saved(looks().convert("CMYK"), "JPEG", quality=95), within=30),
        "PNG, transparent": Seen(saved(half_clear()), right=WHITE, within=1),
        "PNG, palette": Seen(saved(looks().quantize(8))),
        "PNG, transparent palette": Seen(saved(half_clear().quantize(8)), right=WHITE, within=3),
        "GIF, transparent": Seen(saved(half_clear(), "GIF"), right=WHITE, within=3),
        "PNG, long text": Seen(with_chunk(png, b"zTXt", inflates)),
        "PNG, damaged text": Seen(with_chunk(png, b"iTXt", b"\xff" * 40)),
        "PNG, gamma and chroma of sRGB": Seen(
            with_chunk(
                with_chunk(png, b"gAMA", struct.pack(">I", 45455)),
                b"cHRM",
                struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
            )
        ),
        "PNG, animated": Seen(saved(looks(), save_all=True, append_images=others)),
        "GIF, animated": Seen(saved(looks(), "GIF", save_all=True, append_images=others)),
        "WebP, animated": Seen(
            saved(looks(), "WEBP", save_all=True, append_images=others, lossless=True)
        ),
        "AVIF, animated": Seen(
            saved(looks(), "AVIF", save_all=True, append_images=others, quality=95), within=16
        ),
        "JPEG of two lenses": Seen(
            saved(looks(), "MPO", save_all=True, append_images=others), within=16
        ),
        "JPEG, with a thumbnail": Seen(saved(looks(), "JPEG", exif=thumbnail, **fine), within=12),
        "PNG, large": Seen(saved(looks().resize((1600, 800))), within=4, size=(768, 384)),
        "JPEG, large": Seen(
            saved(looks().resize((1601, 799)), "JPEG", quality=90), within=12, size=(768, 383)
        ),
    }


def turned(way: int, format: str, **options: Any) -> bytes:
    """A file that stands upright once its EXIF is obeyed."""
    exif = Image.Exif()
    exif[0x0112] = way
    return saved(looks().transpose(UPRIGHT_AGAIN[way]), format, exif=exif.tobytes(), **options)


def not_read() -> dict[str, tuple[bytes, str]]:
    """Files that are refused, each with a word of the refusal."""
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "a camera")
    return {
        "damaged HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "HEIC"),
        "JPEG, cut": (saved(looks().resize((256, 128)), "JPEG", quality=95)[:900], "JPEG"),
        "PNG, cut": (saved(looks().resize((256, 128)), pnginfo=text)[:120], "PNG"),
        "one side vanishes": (saved(Image.new("RGB", (2048, 16), RED)), "too narrow"),
        "TIFF, CMYK": (saved(looks().convert("CMYK"), "TIFF"), "TIFF"),
        "BMP of one bit": (saved(looks().convert("1"), "BMP"), "BMP"),
        "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        "text": (b"hello, I am no picture", "no picture of a known format"),
    }
