"""How mini's VLM may put a taste into words, and which words of a person's own it reads.

Both come from training and lie in the VLM's file: the phrases that a profile is made of, and the
words that profiles were trained with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from ppd_model.words import is_blank, pictographs, split_words

_JOINING = "'\u200c\u200d"
"""Within words: apostrophes, and what joins or parts the letters of Persian and Indic scripts."""

_NO_VOTE = 1e-9
"""Weights that cancel out add up to less."""


def words_of(text: str) -> list[str]:
    """The words of a text, lower case, in order; what is joined by hyphens is several."""
    words = split_words(text.replace("’", "'"), _JOINING)
    return [word for word in words if not is_blank(word)]


def sentences(likes: Sequence[str], avoids: Sequence[str]) -> str:
    """A profile of two sentences at most: "Prefers a, b and c. Avoids d."."""
    said = [("Prefers", likes), ("Avoids", avoids)]
    return " ".join(f"{verb} {listed(things)}." for verb, things in said if things)


def listed(things: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"


@dataclass(frozen=True)
class KnownWords:
    """The words that a VLM was trained on: those that name a look, and those around them."""

    naming: frozenset[str]
    others: frozenset[str]

    @classmethod
    def read(cls, config: Mapping[str, Sequence[str]]) -> KnownWords:
        """From what ``config`` wrote into a file. Raises ValueError for anything else."""
        try:
            return cls(frozenset(config["naming"]), frozenset(config["others"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a list of words: {error!r}") from error

    def config(self) -> dict[str, list[str]]:
        return {"naming": sorted(self.naming), "others": sorted(self.others)}

    def unread(self, text: str) -> list[str]:
        """The words and pictographs of a text that are not known, each once, in order."""
        known = self.naming | self.others
        return [word for word in dict.fromkeys(_words_and_pictographs(text)) if word not in known]

    def read_any(self, text: str) -> bool:
        """Whether any word of a text is known."""
        return not (self.naming | self.others).isdisjoint(words_of(text))

    def name_a_look(self, text: str) -> bool:
        return not self.naming.isdisjoint(words_of(text))


def _words_and_pictographs(text: str) -> list[str]:
    found: list[str] = []
    place = 0
    for start, end in pictographs(text):
        found += [*words_of(text[place:start]), text[start:end]]
        place = end
    return found + words_of(text[place:])


@dataclass(frozen=True)
class Grammar:
    """Every profile that may be written: each look once at most, so that nothing is said twice.

    ``looks`` holds, for each look, the phrases for its two poles, each with whether it stands
    after "Prefers" or after "Avoids"; a profile names ``most`` looks at most, in this order.
    """

    looks: tuple[tuple[tuple[str, bool], tuple[str, bool]], ...]
    most: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Grammar:
        """From what ``config`` wrote into a file. Raises ValueError for anything else."""
        try:
            looks = tuple(
                tuple((str(phrase), bool(liked)) for phrase, liked in poles)
                for poles in config["looks"]
            )
            grammar = cls(looks, int(config["most"]))  # type: ignore[arg-type]
            if not looks or not all(len(poles) == 2 for poles in looks) or grammar.most < 1:
                raise ValueError(f"{len(looks)} looks, {grammar.most} at most")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a grammar of profiles: {error!r}") from error
        return grammar

    def config(self) -> dict[str, Any]:
        looks = [[list(pole) for pole in poles] for poles in self.looks]
        return {"looks": looks, "most": self.most}

    def profile(self, named: Iterable[tuple[int, int]]) -> str:
        """The text that names these (look, pole), pole 0 or 1."""
        phrases = [self.looks[look][pole] for look, pole in sorted(named)]
        likes = [phrase for phrase, liked in phrases if liked]
        return sentences(likes, [phrase for phrase, liked in phrases if not liked])

    def named(self, text: str) -> dict[int, int]:
        """The pole of each look that a text of this grammar names: of its phrases the longest."""
        found: dict[int, int] = {}
        for look, poles in enumerate(self.looks):
            said = [
                (len(phrase), pole)
                for pole, (phrase, _) in enumerate(poles)
                if re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text)
            ]
            if said:
                found[look] = max(said)[1]
        return found

    def majority(self, texts: Sequence[tuple[str, float]]) -> str | None:
        """The text that names the looks on which texts, each with a weight, agree most.

        Weights for a look's two poles are set against each other. None where nothing is left.
        """
        votes = [0.0] * len(self.looks)
        for text, weight in texts:
            for look, pole in self.named(text).items():
                votes[look] += weight if pole else -weight
        decided = [look for look, vote in enumerate(votes) if abs(vote) > _NO_VOTE]
        strongest = sorted(decided, key=lambda look: -abs(votes[look]))[: self.most]
        return self.profile((look, int(votes[look] > 0)) for look in strongest) or None

    def every_profile(self) -> Iterator[str]:
        for count in range(1, self.most + 1):
            for looks in combinations(range(len(self.looks)), count):
                for poles in product((0, 1), repeat=count):
                    yield self.profile(zip(looks, poles, strict=True))


class AllowedTokens:
    """The tokens that may follow, so that what stands after the heading is a profile of a grammar.

    Before the heading everything is allowed. ``tokens_of`` gives a text's tokens.
    """

    def __init__(
        self,
        grammar: Grammar,
        tokens_of: Callable[[str], Sequence[int]],
        *,
        heading: int,
        end: int,
        vocabulary: int,
    ) -> None:
        self.heading = heading
        self._end = end
        self._all = list(range(vocabulary))
        next_tokens: dict[tuple[int, ...], set[int]] = {}
        for text in grammar.every_profile():
            tokens = (*tokens_of(f" {text}"), end)
            for length, token in enumerate(tokens):
                next_tokens.setdefault(tokens[:length], set()).add(token)
        self._next = {begun: sorted(tokens) for begun, tokens in next_tokens.items()}

    def __call__(self, row: int, ids_S: Any) -> list[int]:
        """For ``prefix_allowed_tokens_fn``: of the row's tokens so far, on the device or not."""
        ids = ids_S.tolist()
        begun = self.last_heading(ids)
        return self._all if begun is None else self.after(ids[begun:])

    def last_heading(self, ids: Sequence[int]) -> int | None:
        """How many tokens there are up to and with the last heading; None without one."""
        if self.heading not in ids:
            return None
        return len(ids) - ids[::-1].index(self.heading)

    def after(self, begun: Sequence[int]) -> list[int]:
        """What may follow these tokens of a profile."""
        return self._next.get(tuple(begun), [self._end])
