"""What is said of words that the model did not read."""

from collections.abc import Sequence
from typing import Any

from ppd_model.words import CaptionWords

_NAMED = 6
_LISTED = 64
_WORD_CHARACTERS = 40


def not_read(field: str, text: str, unread: str, unknown: Sequence[str]) -> list[dict[str, Any]]:
    """Warnings about a prompt, as results hold them; none for a text that was read whole.

    `unread` is its end that was cut off, `unknown` are the words that the model does not know.
    """
    said: list[dict[str, Any]] = []
    if unread:
        detail = f"The model reads no more than the first {len(text) - len(unread)} characters"
        said.append({"code": "prompt_truncated", "field": field, "detail": f"{detail}."})
    if unknown:
        said.append(_unknown_words(field, unknown))
    return said


def caption_not_read(field: str, text: str, words: CaptionWords) -> list[dict[str, Any]]:
    """Warnings about the caption of a person's own pair; none for one that is read whole."""
    said: list[dict[str, Any]] = []
    known, unknown = words.known(text), words.unknown(text)
    if len(known) < words.least:
        detail = f"The model knows fewer than {words.least} words of it; the pair is read without."
        said.append({"code": "caption_unread", "field": field, "detail": detail})
    elif len(known) > words.most:
        detail = f"The model reads no more than the first {words.most} words that it knows."
        said.append({"code": "caption_truncated", "field": field, "detail": detail})
    if unknown:
        said.append(_unknown_words(field, unknown))
    return said


def _unknown_words(field: str, unknown: Sequence[str]) -> dict[str, Any]:
    listed = [word[:_WORD_CHARACTERS] for word in unknown[:_LISTED]]
    named = ", ".join(f"\u201c{word}\u201d" for word in listed[:_NAMED])
    more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
    return {
        "code": "unknown_words",
        "field": field,
        "detail": f"The model does not know {named}{more}; it reads as if nothing stood there.",
        "words": listed,
        "count": len(unknown),
    }
