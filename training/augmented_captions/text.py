"""A profile behind a caption, and how much of it a text encoder reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ppd_model.nets.text_encoder import TextEncoder
from ppd_model.words import FRAMING_TOKENS


def augmented(caption: str, profile: str) -> str:
    """A caption with the profile behind it (paper, B.2)."""
    return f"{caption}. {profile}"


def reading(
    encoder: TextEncoder, captions: Sequence[str], profiles: Sequence[str]
) -> dict[str, float]:
    """How much of the profiles behind these captions the text encoder reads, as means over them.

    known: share of the profile's different words that are in its vocabulary. reached: share of the
    profile's letters that stand before the cut. understood: share of the augmented prompt's
    different words, before the cut, that are known. cut: share of prompts that are cut.
    caption_cut: the same of the plain captions. places: tokens that a prompt can have.
    """
    read = []
    for caption, profile in zip(captions, profiles, strict=True):
        text = augmented(caption, profile)
        unread = encoder.unread(text)
        seen = text[: len(text) - len(unread)]
        read.append(
            {
                "known": 1 - len(encoder.unknown_words(profile)) / len(different_words(profile)),
                "reached": 1 - min(1.0, len(unread) / len(profile)),
                "understood": 1 - len(encoder.unknown_words(seen)) / len(different_words(seen)),
                "cut": bool(unread),
                "caption_cut": bool(encoder.unread(caption)),
            }
        )
    means = {name: float(np.mean([one[name] for one in read])) for name in read[0]}
    return means | {"places": float(encoder.max_tokens - FRAMING_TOKENS)}


def different_words(text: str) -> set[str]:
    """The words of a text, without punctuation."""
    return {word for word in (w.strip(".,:;!?\"'()") for w in text.split()) if word}
