"""Everyday words for the eight looks, and what each says.

A term is written once, under the look and the pole that it names; the few that say something of
several looks are listed apart. A longer term is its own: "dark corners" speaks of the vignette,
not of the brightness.

Legend: L looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from training.world.scene import LOOKS

Floats = NDArray[np.floating]

_ADJECTIVES: Mapping[str, tuple[str, str]] = {
    # look: words for little of it, words for much of it
    "brightness": (
        "dark, dim, shady, murky, shadowy, dusky, dimly lit, unlit, sombre, somber, moonlit",
        "bright, sunny, light, luminous, radiant, well lit, brightly lit, sunlit, glowing, shining",
    ),
    "contrast": (
        "soft, gentle, flat, hazy, misty, foggy, low contrast, smooth, mellow, softly shaded",
        "bold, punchy, contrasty, striking, dramatic, strong, hard, high contrast, stark, crisp",
    ),
    "saturation": (
        "muted, faded, pale, washed out, desaturated, greyish, grayish, grey, gray, colourless, "
        "colorless, dull, monochrome, subdued, drab, bleached, black and white",
        "colourful, colorful, vivid, vibrant, saturated, lively, rich in colour, gaudy, rainbow, "
        "brightly coloured, brightly colored, multicoloured, intense",
    ),
    "warmth": (
        "cool, cold, blue, bluish, icy, chilly, wintry, frosty, cool toned",
        "warm, cosy, cozy, golden, orange, amber, autumnal, fiery, reddish, toasty, warm toned",
    ),
    "detail": (
        "simple, plain, clean, minimal, minimalist, uncluttered, calm, empty, sparse, bare, quiet, "
        "tidy, simplified, peaceful",
        "detailed, busy, patterned, decorated, ornate, intricate, textured, elaborate, decorative, "
        "rich in detail, full of detail, fussy",
    ),
    "size": (
        "small, tiny, distant, far away, miniature, remote, zoomed out, wide, far off, little",
        "big, large, close, close up, huge, giant, near, enormous, zoomed in, up close",
    ),
    "outline": (
        "soft edged, lineless, unlined, painterly, thinly outlined, without outlines",
        "outlined, inked, crisp edged, sharp edged, hard edged, line drawn, thickly outlined",
    ),
    "vignette": (
        "open, evenly lit, unframed, even, open edged",
        "framed, vignetted, dark edged, shaded at the edges, dark at the edges",
    ),
}
_COMPARATIVES: Mapping[str, tuple[str, str]] = {
    "brightness": ("darker, dimmer, shadier", "brighter, lighter, sunnier"),
    "contrast": ("softer, gentler, flatter, smoother", "bolder, punchier, stronger, crisper"),
    "saturation": ("paler, greyer, duller", "richer, livelier"),
    "warmth": ("cooler, colder, bluer", "warmer, cosier, cozier"),
    "detail": ("simpler, plainer, cleaner, calmer, quieter, tidier", "busier, fussier"),
    "size": ("smaller, tinier, farther away, further away", "bigger, larger, closer, nearer"),
}
_NOUNS: Mapping[str, tuple[str, str]] = {
    "brightness": (
        "shady scenes, low light, dark pictures, darkness, dim light, night, shade, dark scenes, "
        "dark colours, dark tones, gloom, shadow",
        "sunny scenes, plenty of light, bright pictures, brightness, light, sunlight, sunshine, "
        "daylight, sun, bright light, bright scenes, light colours, light tones",
    ),
    "contrast": (
        "gentle contrast, soft contrast, gentle shading, low contrast, soft light, soft shading, "
        "haze, mist, fog, softness, weak contrast, soft tones",
        "bold contrast, strong contrast, punchy contrast, high contrast, contrast, deep shadows, "
        "hard light, hard shadows, drama, sharp contrast, bold shapes, boldness",
    ),
    "saturation": (
        "muted colour, faded colour, muted tones, pale colours, greyish colour, muted colours, "
        "dull colours, soft colours, grey, gray, greys, faded colours, subdued colours, pale tones",
        "vivid colour, lively colour, colourful pictures, saturated colours, colour, colours, "
        "vivid colours, bright colours, bold colours, strong colours, rich colours, bright colour, "
        "vibrant colours, rich colour, strong colour, lots of colours, intense colours",
    ),
    "warmth": (
        "cool blue tones, cool light, cool colours, cold colours, blue tones, blue, blues, "
        "cold light, cold tones, cool tones, blue light, winter, ice, coldness",
        "warm golden tones, warm light, warm colours, warmth, golden light, orange tones, gold, "
        "warm tones, orange, reds, red tones, autumn, sunsets, evening sun, firelight, cosiness",
    ),
    "detail": (
        "calm backgrounds, simple surfaces, plain settings, simple pictures, little detail, "
        "simplicity, plain backgrounds, empty backgrounds, clean backgrounds, simple backgrounds, "
        "plain surfaces, simple shapes, empty space, clean lines",
        "patterned backgrounds, decorative patterns, fine detail, details, detail, patterns, "
        "texture, textures, ornaments, decoration, decorations, busy backgrounds, clutter, "
        "detailed backgrounds, fine details, small details, pattern, stripes, dots",
    ),
    "size": (
        "small distant subjects, wide open views, small subjects, tiny subjects, distance, "
        "small things, tiny things, wide views, wide shots, distant subjects, distant views, "
        "small objects, space around the subject",
        "large subjects up close, big subjects, close-up views, close-ups, large subjects, "
        "big things, close-up, large objects, big objects, close views, close shots, big shapes, "
        "large shapes",
    ),
    "outline": (
        "delicate lines, thin outlines, soft edges, thin lines, fine lines, faint outlines, "
        "soft outlines, fine outlines, blurred edges",
        "heavy outlines, thick outlines, strong ink lines, outlines, ink lines, dark outlines, "
        "lines, ink, contours, crisp edges, sharp edges, hard edges, clear outlines, thick lines, "
        "bold outlines, black outlines, strong outlines, bold lines, black lines, heavy lines",
    ),
    "vignette": (
        "evenly lit corners, open edges, clear corners, bright corners, light corners, even light, "
        "light edges, bright edges, clear edges",
        "dark corners, a dark vignette, shaded edges, a vignette, vignette, vignettes, dark edges, "
        "a dark frame, frames, shaded corners, dark borders, a frame, vignetting, black corners",
    ),
}
_OF_SEVERAL: Mapping[str, dict[str, float]] = {
    "cheerful": {"brightness": 1.0, "saturation": 0.6},
    "happy": {"brightness": 1.0, "saturation": 0.6},
    "joyful": {"brightness": 1.0, "saturation": 0.6},
    "gloomy": {"brightness": -1.0, "saturation": -0.5},
    "sad": {"brightness": -1.0, "saturation": -0.5},
    "moody": {"brightness": -1.0, "vignette": 0.6},
    "mysterious": {"brightness": -1.0, "vignette": 0.6},
    "spooky": {"brightness": -1.0, "vignette": 0.4},
    "pastel": {"saturation": -1.0, "brightness": 0.4},
    "dreamy": {"contrast": -1.0, "outline": -0.4},
    "airy": {"brightness": 1.0, "vignette": -0.5},
    "neon": {"saturation": 1.0, "contrast": 0.5},
    "cinematic": {"vignette": 1.0, "contrast": 0.6},
    "vintage": {"saturation": -1.0, "vignette": 0.5},
    "cartoonish": {"outline": 1.0, "saturation": 0.5},
    "delicate": {"contrast": -1.0, "outline": -0.6},
    "summery": {"brightness": 1.0, "warmth": 0.6},
}
_SEVERAL_NOUNS: Mapping[str, dict[str, float]] = {
    "pastels": {"saturation": -1.0, "brightness": 0.4},
    "pastel colours": {"saturation": -1.0, "brightness": 0.4},
    "pastel tones": {"saturation": -1.0, "brightness": 0.4},
    "summer": {"brightness": 1.0, "warmth": 0.6},
    "cartoons": {"outline": 1.0, "saturation": 0.5},
    "comics": {"outline": 1.0, "saturation": 0.5},
}
OPPOSITES = (
    ("bright", "dark"),
    ("light", "dim"),
    ("bold", "soft"),
    ("colourful", "muted"),
    ("vivid", "pale"),
    ("warm", "cold"),
    ("warm", "cool"),
    ("detailed", "simple"),
    ("busy", "plain"),
    ("big", "small"),
    ("close", "far away"),
    ("outlined", "soft edged"),
    ("framed", "open"),
)


@dataclass(frozen=True)
class Term:
    """A word or phrase, and what it says of each look: -1 to 1, 0 where it says nothing.

    In a sentence that turns it round, ``factor`` is by how much, and ``says_L`` what comes of it.
    """

    text: str
    says_L: Floats
    factor: float = 1.0


@cache
def adjectives() -> tuple[Term, ...]:
    """What can stand before "pictures", or after "is"."""
    several = [Term(text, _says(weights)) for text, weights in _OF_SEVERAL.items()]
    return (*_terms(_ADJECTIVES), *several)


@cache
def comparatives() -> tuple[Term, ...]:
    return _terms(_COMPARATIVES)


@cache
def nouns() -> tuple[Term, ...]:
    """What can be liked, avoided, had more or less of."""
    several = [Term(text, _says(weights)) for text, weights in _SEVERAL_NOUNS.items()]
    both = (*_terms(_NOUNS), *several)
    american = [Term(_american(t.text), t.says_L) for t in both if "colour" in t.text]
    return (*both, *american)


@cache
def by_look(kind: str) -> tuple[tuple[Term, ...], ...]:
    """Terms of a kind ("adjectives", "comparatives", "nouns") by the look they speak of most."""
    terms = {"adjectives": adjectives, "comparatives": comparatives, "nouns": nouns}[kind]()
    return tuple(
        tuple(term for term in terms if int(np.abs(term.says_L).argmax()) == look)
        for look in range(len(LOOKS))
    )


def _american(text: str) -> str:
    return text.replace("colour", "color")


def _terms(table: Mapping[str, tuple[str, str]]) -> tuple[Term, ...]:
    return tuple(
        Term(text, _says({look: sign}))
        for look, poles in table.items()
        for sign, listed in zip((-1.0, 1.0), poles, strict=True)
        for text in listed.split(", ")
    )


def _says(weights: Mapping[str, float]) -> Floats:
    return np.array([weights.get(look, 0.0) for look in LOOKS], dtype=np.float32)
