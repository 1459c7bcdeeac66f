"""What of a typed text can be read at all. Needs no torch.

Blank and invisible characters say nothing to any model. A small model knows few words besides: the
vocabulary is that of its tokenizer's file, and texts are split here as its tokenizer splits them.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppd_model.presets import Preset

TEXT_TOKENIZER_FILE = "text_tokenizer.json"
VLM_TOKENIZER_FILE = "vlm_tokenizer.json"
FRAMING_TOKENS = 2
"""Start and end, which take two of a prompt's places."""

INVISIBLE = (
    (0x00AD, 0x00AD),  # soft hyphen
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),  # Hangul fillers
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),  # zero width, and the marks of direction
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x2800, 0x2800),  # the blank of Braille
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0x1BCA0, 0x1BCA3),  # of shorthand
    (0x1D173, 0x1D17A),  # of musical notes
    (0xE0000, 0xE0FFF),  # tags, and more variation selectors
)
"""Ranges of characters that show nothing: Unicode's Default_Ignorable_Code_Point and a few more."""


@dataclass(frozen=True)
class Vocabulary:
    """The only words that a text encoder knows, and how many of a prompt it reads."""

    words: frozenset[str]
    most_words: int

    def reads(self, text: str) -> bool:
        """Whether any word of the text is read."""
        return not self.words.isdisjoint(split_words(text)[: self.most_words])

    def why_unread(self, text: str) -> str:
        """Why nothing is read of a text, said of it."""
        if self.words.isdisjoint(split_words(text)):
            return "has no word that the model knows"
        return f"is cut after {self.most_words} words, before the first one that the model knows"


@dataclass(frozen=True)
class CaptionWords:
    """The only words of captions that a small VLM knows: other words would lead it astray.

    It is shown the first `most` of them; a caption that has fewer than `least` is not read.
    """

    words: frozenset[str]
    least: int = 3
    most: int = 9

    @classmethod
    def of(cls, tokens: Iterable[str]) -> CaptionWords:
        """Those that are one token each; in a byte-level vocabulary these begin with a blank."""
        return cls(frozenset(token[1:] for token in tokens if token.startswith("\u0120")))

    def known(self, text: str) -> list[str]:
        """The known words of a caption, in order, however many and however often."""
        return [word for word in split_words(text) if word in self.words]

    def unknown(self, text: str) -> list[str]:
        """Words that are not known, each once and in order; then emoji."""
        found = [word for word in split_words(text) if word not in self.words]
        return list(dict.fromkeys([*found, *(text[a:b] for a, b in pictographs(text))]))


def caption_words_of(preset: Preset, weights_dir: Path | None) -> CaptionWords | None:
    """Of a preset whose VLM knows few words; None where any are read, or no file tells."""
    document = _tokenizer_file(preset, weights_dir, VLM_TOKENIZER_FILE)
    return None if document is None else CaptionWords.of(document["model"]["vocab"])


def vocabulary_of(preset: Preset, weights_dir: Path | None) -> Vocabulary | None:
    """The vocabulary of a preset with one; None where any text is read, or no file tells."""
    document = _tokenizer_file(preset, weights_dir, TEXT_TOKENIZER_FILE)
    if document is None:
        return None
    special = {token["content"] for token in document["added_tokens"]}
    words = frozenset(document["model"]["vocab"]) - special
    return Vocabulary(words, preset.text_encoder["max_position_embeddings"] - FRAMING_TOKENS)


def _tokenizer_file(preset: Preset, weights_dir: Path | None, name: str) -> Any:
    path = (weights_dir or Path(__file__).parent / preset.name) / name
    if preset.published or not path.is_file():
        return None
    return json.loads(path.read_text(encoding="utf-8"))


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: spaces, control characters, and what is invisible."""
    return all(_shows_nothing(character) for character in text)


def split_words(text: str, joining: str = "") -> list[str]:
    """The words of a text in order, lower case, without punctuation and symbols.

    The characters of `joining` stay within words; at their ends they are left out, too.
    """
    plain = unicodedata.normalize("NFKC", text).lower()
    kept = "".join(c if _in_word(c) or c in joining else " " for c in plain).split()
    return [word for found in kept if (word := found.strip(joining))]


def pictographs(text: str) -> list[tuple[int, int]]:
    """Where emoji and other pictures stand that are no punctuation: start and end of every run."""
    runs: list[tuple[int, int]] = []
    for place, character in enumerate(text):
        joined = bool(runs) and runs[-1][1] == place
        category = unicodedata.category(character)
        if category == "So" and not _shows_nothing(character):
            runs.append((runs.pop()[0] if joined else place, place + 1))
        elif joined and category in ("Sk", "Cf", "Mn"):
            runs.append((runs.pop()[0], place + 1))
    return runs


def _shows_nothing(character: str) -> bool:
    if character.isspace() or unicodedata.category(character) == "Cc":
        return True
    code = ord(character)
    return any(first <= code <= last for first, last in INVISIBLE)


def _in_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character) in ("Mn", "Mc", "Me", "Pc")
