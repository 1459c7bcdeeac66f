"""Any pixels become sRGB on white, in 8 bits, as screens show them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms

_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_SRGB_GAMMA = 1 / 2.2
_SAME_GAMMA = 0.02
"""Gammas that are no further apart look the same; what is written for sRGB scatters so."""


def on_white(
    image: Image.Image,
    profile: bytes | None = None,
    gamma: float | None = None,
    transparent: tuple[int, ...] | None = None,
) -> Image.Image:
    """The picture in RGB, without anything that it said of itself.

    `profile` is its ICC profile; one that is damaged, or of another kind of colour, is ignored.
    `gamma`: its values are this power of light. `transparent`: the value of 8 bits a channel that
    stands for nothing.
    """
    colour, alpha = _apart(image, transparent)
    rgb = _srgb(colour, profile, gamma)
    if alpha is None:
        return rgb
    white = Image.new("RGB", rgb.size, "white")
    white.paste(rgb, mask=alpha)
    return white


def _apart(
    image: Image.Image, transparent: tuple[int, ...] | None
) -> tuple[Image.Image, Image.Image | None]:
    """Colour (L, RGB or CMYK) and how opaque it is; None where all of it is."""
    if image.mode.startswith("I;16"):
        pixels_HW = np.asarray(image).astype(np.uint16) >> 8
        image = Image.fromarray(pixels_HW.astype(np.uint8))
    elif image.mode in ("1", "YCbCr", "RGBX", "HSV", "LAB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if transparent is not None and image.mode in ("L", "RGB"):
        pixels_HWC = np.asarray(image).reshape(image.height, image.width, -1)
        shows_HW = (pixels_HWC != np.array(transparent)).any(axis=-1)
        return image, Image.fromarray(shows_HW.astype(np.uint8) * 255)
    if image.mode in ("L", "RGB", "CMYK"):
        return image, None
    if image.mode == "P" and "transparency" not in image.info:
        return image.convert("RGB"), None
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    elif image.mode not in ("LA", "RGBA"):
        image = image.convert("RGBA")
    *bands, alpha = image.split()
    return (bands[0] if len(bands) == 1 else Image.merge("RGB", bands)), alpha


def _srgb(image: Image.Image, profile: bytes | None, gamma: float | None) -> Image.Image:
    converted = _by_profile(image, profile) if profile else None
    if converted is not None:
        return converted
    rgb = image.convert("RGB")
    if gamma is None or not 0.1 < gamma < 5 or abs(gamma - _SRGB_GAMMA) < _SAME_GAMMA:
        return rgb
    light_V = (np.arange(256) / 255) ** (1 / gamma)
    shown_V = np.where(light_V <= 0.0031308, 12.92 * light_V, 1.055 * light_V ** (1 / 2.4) - 0.055)
    return rgb.point([round(255 * float(shown)) for shown in shown_V] * 3)


def _by_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """None for a profile that cannot be used for such a picture."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if image.mode == "L" and space == "RGB":
            image = image.convert("RGB")
        if space != _SPACES[image.mode]:
            return None
        return ImageCms.profileToProfile(
            image,
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.PERCEPTUAL,
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
