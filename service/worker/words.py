"""What is said of words that the model did not read."""

from collections.abc import Sequence
from typing import Any

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
        listed = [word[:_WORD_CHARACTERS] for word in unknown[:_LISTED]]
        named = ", ".join(f"\u201c{word}\u201d" for word in listed[:_NAMED])
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        detail = f"The model does not know {named}{more}; it reads as if nothing stood there."
        said.append(
            {
                "code": "unknown_words",
                "field": field,
                "detail": detail,
                "words": listed,
                "count": len(unknown),
            }
        )
    return said
