"""A list of words that an operator does not want to read. It says nothing of pictures."""

import re
import unicodedata
from pathlib import Path
from typing import get_args

from ppd_model.words import INVISIBLE
from service.core.ports import RefusalReason

_REASONS: tuple[RefusalReason, ...] = get_args(RefusalReason)
_UNSEEN = re.compile("[" + "".join(f"{chr(a)}-{chr(b)}" for a, b in INVISIBLE) + "]")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
"""Scripts that put no space between words: an entry in them is found inside longer text too."""


class WordList:
    """Refuses a text that has one of these words, or phrases, as whole words.

    Case, accents, widths of letters, invisible characters and the signs between words make no
    difference.
    """

    def __init__(self, text: str) -> None:
        """A word or a phrase in each line, # before remarks, and [violence] before the lines of a
        reason; those before the first are of `other`. Raises ValueError for what is neither."""
        self._phrases: dict[RefusalReason, list[str]] = {}
        reason: RefusalReason = "other"
        for number, line in enumerate(text.splitlines(), 1):
            entry = line.partition("#")[0].strip()
            if entry.startswith("["):
                reason = _reason(entry, number)
            elif entry:
                phrase = _plain(entry)
                if not phrase:
                    raise ValueError(f"line {number} of the word list has no letter and no digit")
                self._phrases.setdefault(reason, []).append(phrase)
        self._patterns = {
            reason: re.compile("|".join(map(_pattern, self._phrases[reason])))
            for reason in _REASONS
            if reason in self._phrases
        }

    @classmethod
    def read(cls, path: Path) -> "WordList":
        """Raises OSError or ValueError that names the file."""
        try:
            return cls(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def __len__(self) -> int:
        return sum(map(len, self._phrases.values()))

    async def refuses_text(self, text: str) -> RefusalReason | None:
        plain = _plain(text)
        return next((reason for reason, p in self._patterns.items() if p.search(plain)), None)

    async def refuses_picture(self, data: bytes, media_type: str) -> RefusalReason | None:
        """Never: words do not see."""
        return None


def _reason(entry: str, number: int) -> RefusalReason:
    for reason in _REASONS:
        if entry == f"[{reason}]":
            return reason
    known = ", ".join(f"[{reason}]" for reason in _REASONS)
    raise ValueError(f"line {number} of the word list: expected one of {known}")


def _plain(text: str) -> str:
    """Lower-case words without accents, one space between each two."""
    apart = unicodedata.normalize("NFKD", _UNSEEN.sub("", text).casefold())
    bare = "".join(c for c in apart if unicodedata.category(c) != "Mn")
    return " ".join(re.findall(r"\w+", bare.replace("_", " ")))


def _pattern(phrase: str) -> str:
    if _UNSPACED.search(phrase):
        return re.escape(phrase)
    return rf"(?<!\w){re.escape(phrase)}(?!\w)"
