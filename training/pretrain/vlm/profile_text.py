"""What mini's VLM learns to say: looks in words, and tastes as profiles.

All looks are standardized (standard deviations from their content's mean), all tastes lie along
the same eight axes, in the order of ``LOOKS``. The words of the responses follow from the numbers
without chance; only the profiles that people might type themselves are varied at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ppd_model import prompts
from ppd_model.profile_texts import Grammar, listed

Floats = NDArray[np.floating]

# For each look: (low, high) words.
_ADJECTIVES = (
    ("dark", "bright"),
    ("soft", "bold"),
    ("muted", "colourful"),
    ("cool", "warm"),
    ("plain", "patterned"),
    ("distant", "close"),
    ("fine", "inked"),
    ("open", "framed"),
)
_COMPARATIVES = (
    ("darker", "brighter"),
    ("softer", "bolder"),
    ("paler", "richer"),
    ("cooler", "warmer"),
    ("plainer", "busier"),
    ("smaller", "larger"),
    ("finer", "inkier"),
    ("more open", "more framed"),
)
# What a profile calls each pole, without comma or "and": the first where it is liked, the second
# where it is avoided; people type any of them.
_THINGS = (
    (
        ("shady scenes", "low light", "dark pictures"),
        ("sunny scenes", "plenty of light", "bright pictures"),
    ),
    (
        ("gentle contrast", "soft contrast", "gentle shading"),
        ("bold contrast", "strong contrast", "punchy contrast"),
    ),
    (
        ("muted colour", "faded colour", "muted tones"),
        ("vivid colour", "lively colour", "colourful pictures"),
    ),
    (
        ("cool blue tones", "cool light", "cool colours"),
        ("warm golden tones", "warm light", "warm colours"),
    ),
    (
        ("calm backgrounds", "simple surfaces", "plain settings"),
        ("patterned backgrounds", "decorative patterns", "fine detail"),
    ),
    (
        ("small distant subjects", "wide open views", "small subjects"),
        ("large subjects up close", "big subjects", "close-up views"),
    ),
    (
        ("delicate lines", "thin outlines", "soft edges"),
        ("heavy outlines", "thick outlines", "strong ink lines"),
    ),
    (
        ("evenly lit corners", "open edges", "clear corners"),
        ("dark corners", "a dark vignette", "shaded edges"),
    ),
)
# More words for the same, which a person might type.
_TYPED_THINGS = (
    (("darkness", "gloomy pictures", "dark"), ("brightness", "light", "bright")),
    (("low contrast", "soft"), ("high contrast", "contrast", "bold")),
    (("pale colours", "greyish colour", "muted"), ("saturated colours", "colour", "colourful")),
    (("cold colours", "blue tones", "cool"), ("warmth", "golden light", "orange tones", "warm")),
    (("simple pictures", "little detail", "plain"), ("details", "patterns", "texture", "detailed")),
    (("tiny subjects", "distance", "far away"), ("close-ups", "large subjects", "close")),
    (("no outlines", "thin lines", "fine lines"), ("outlines", "ink lines", "dark outlines")),
    (("clear corners", "no vignette"), ("vignette", "vignettes", "dark edges")),
)

_HAS_MORE_OR_LESS = (False, True, True, False, True, False, True, True)

DESCRIBED_SD = 0.6
"""A look within this many standard deviations of the ordinary is not mentioned."""
_MOST_WORDS = 3
_MOST_DIFFERENCES = 4
_MOST_STATED = 5
_STATED_SHARE = 0.35
"""A profile states the axes with at least this share of its strongest preference."""
SURE = 0.7
"""And of these only those whose direction is at least this probable, where that is known."""


def describe(looks_L: Floats) -> str:
    """The most marked looks of one picture: " bright, warm, plain."."""
    words = _strongest(looks_L, _MOST_WORDS, DESCRIBED_SD)
    return f" {', '.join(_ADJECTIVES[i][int(looks_L[i] > 0)] for i in words) or 'balanced'}."


def differences(delta_L: Floats) -> str:
    """How the preferred picture differs from the other: " preferred is brighter, cooler."."""
    words = _strongest(delta_L, _MOST_DIFFERENCES, DESCRIBED_SD)
    listed = ", ".join(_COMPARATIVES[i][int(delta_L[i] > 0)] for i in words)
    return f" preferred is {listed or 'much like the other'}."


def profile(taste_L: Floats, sure_L: Floats | None = None) -> str:
    """A taste in two sentences, without leading space.

    The strongest preferences are stated, at most five, in the order of ``LOOKS``. A look that a
    picture has more or less of, such as outlines, is liked or avoided; of the others, such as
    warm or cool, the one is liked. ``sure_L`` as for ``stated``.
    """
    return grammar().profile((i, int(taste_L[i] > 0)) for i in stated(taste_L, sure_L))


def stated(taste_L: Floats, sure_L: Floats | None = None) -> list[int]:
    """The looks that a profile of the taste names, strongest first; at least one.

    ``sure_L`` is the probability of each look's direction, where it is known: a look that is less
    than ``SURE`` is passed over, unless it is the strongest.
    """
    ranked = [i for _, i in _ranked(taste_L)]
    if sure_L is None:
        return ranked
    return [i for i in ranked if sure_L[i] >= SURE] or ranked[:1]


@cache
def grammar() -> Grammar:
    """Every profile that ``profile`` can give."""
    looks = tuple(
        (
            (high[1], False) if more_or_less else (low[0], True),
            (high[0], True),
        )
        for (low, high), more_or_less in zip(_THINGS, _HAS_MORE_OR_LESS, strict=True)
    )
    return Grammar(looks, _MOST_STATED)


def typed_phrases() -> list[str]:
    """Every phrase that ``typed_profile`` may use."""
    return [
        phrase
        for table in (_THINGS, _TYPED_THINGS)
        for poles in table
        for pole in poles
        for phrase in pole
    ]


def typed_profile(taste_L: Floats, rng: np.random.Generator) -> tuple[str, list[int]]:
    """The same taste as a person might type it, in any order, wording and completeness.

    Returns the text and the axes it speaks of.
    """
    ranked = [i for _, i in _ranked(taste_L)]
    kept = ranked[: int(rng.integers(1, len(ranked) + 1))]
    as_like = {i: bool(rng.random() < 0.6) for i in kept}
    order = [int(i) for i in rng.permutation(kept)]
    likes = [_typed_thing(taste_L, i, True, rng) for i in order if as_like[i]]
    avoids = [_typed_thing(taste_L, i, False, rng) for i in order if not as_like[i]]
    like_verbs = ("Prefers", "Likes", "I like", "I love", "I prefer", "More", "Loves", "Enjoys")
    avoid_verbs = ("Avoids", "Dislikes", "I dislike", "I hate", "I do not like", "Less", "No")
    sentences = []
    if likes:
        bare = rng.random() < 0.15 and not avoids
        verb = "" if bare else f"{rng.choice(like_verbs)} "
        sentences.append(f"{verb}{_joined(likes, rng)}")
    if avoids:
        sentences.append(f"{rng.choice(avoid_verbs)} {_joined(avoids, rng)}")
    if rng.random() < 0.2:
        sentences.reverse()
    text = ". ".join(sentences) + ("." if rng.random() < 0.8 else "")
    return (text.lower() if rng.random() < 0.25 else text), kept


def response(
    variant: prompts.Variant,
    shown_looks: Sequence[tuple[Floats, Floats]],
    deltas: Sequence[Floats],
    profile_text: str,
) -> str:
    """The whole response to one prompt, ending with its profile.

    ``shown_looks`` are the looks of the first and second image of each pair as shown, ``deltas``
    what the response says of the preferred image's looks minus the other's.
    """
    parts = []
    for number, ((first_L, second_L), delta_L) in enumerate(zip(shown_looks, deltas, strict=True)):
        headings = prompts.response_headings(variant, number)
        texts = (describe(first_L), describe(second_L), differences(delta_L))
        parts += [heading + text for heading, text in zip(headings, texts, strict=True)]
    return f"{''.join(parts)}{prompts.profile_heading()} {profile_text}"


def _ranked(taste_L: Floats) -> list[tuple[int, int]]:
    """(rank, axis) of the stated preferences, strongest first; at least one."""
    strength_L = np.abs(taste_L)
    order = np.argsort(-strength_L, kind="stable")[:_MOST_STATED]
    floor = _STATED_SHARE * strength_L[order[0]]
    return [(rank, int(i)) for rank, i in enumerate(order) if rank == 0 or strength_L[i] >= floor]


def _typed_thing(taste_L: Floats, axis: int, liked: bool, rng: np.random.Generator) -> str:
    pole = int((taste_L[axis] > 0) == liked)
    things = _THINGS[axis][pole] + _TYPED_THINGS[axis][pole]
    return str(things[int(rng.integers(len(things)))])


def _strongest(values_L: Floats, most: int, floor: float) -> list[int]:
    """Axes of the largest values that pass the floor, in the order of ``LOOKS``."""
    order = np.argsort(-np.abs(values_L), kind="stable")[:most]
    return sorted(int(i) for i in order if abs(values_L[i]) >= floor)


def _joined(things: Sequence[str], rng: np.random.Generator) -> str:
    return ", ".join(things) if rng.random() < 0.4 else listed(things)
