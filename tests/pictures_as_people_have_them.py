"""Pictures of many kinds, all of which look like `LOOKS` to whoever sees them."""

import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms

RED, BLUE = (220, 30, 40), (30, 60, 200)
SIZE = (64, 32)


def looks() -> Image.Image:
    """Left half red, right half blue."""
    picture = Image.new("RGB", SIZE, RED)
    picture.paste(BLUE, (SIZE[0] // 2, 0, *SIZE))
    return picture


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def samples() -> dict[str, bytes]:
    """Files by what is special about them."""
    turned = Image.Exif()
    turned[0x0112] = 6
    lying = looks().transpose(Image.Transpose.ROTATE_90)
    clear = looks().convert("RGBA")
    clear.putalpha(200)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    other = [Image.new("RGB", SIZE, "white")]
    deep = (np.asarray(looks().convert("L")).astype(np.uint16) * 257).copy()
    return {
        "PNG": saved(looks()),
        "JPEG, turned": saved(lying, "JPEG", quality=95, exif=turned.tobytes()),
        "JPEG, CMYK": saved(looks().convert("CMYK"), "JPEG", quality=95),
        "JPEG, grey": saved(looks().convert("L"), "JPEG", quality=95),
        "PNG, profile": saved(looks(), icc_profile=srgb),
        "PNG, transparent": saved(clear),
        "PNG, palette": saved(looks().quantize(8)),
        "PNG, 16 bits": saved(Image.fromarray(deep)),
        "WebP, animated": saved(looks(), "WEBP", save_all=True, append_images=other),
        "GIF": saved(looks(), "GIF"),
        "AVIF": saved(looks(), "AVIF", quality=95),
        "PNG, large": saved(looks().resize((1600, 800))),
        "JPEG, large": saved(looks().resize((1601, 799)), "JPEG", quality=90),
    }
