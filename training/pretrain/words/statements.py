"""Profiles as people type or edit them, and what they state.

A statement is a number for each look: the sign says which way, the size how much; 0 where the
text says nothing. Negation turns a term round, "not too" by half; degrees weaken or strengthen.

Legend: L looks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ppd_model.profile_texts import KnownWords, words_of
from training.pretrain.vlm import profile_text
from training.pretrain.words import vocabulary
from training.pretrain.words.vocabulary import Term
from training.world.scene import LOOKS
from training.world.tastes import Population

Floats = NDArray[np.floating]
Generator = np.random.Generator

Degrees = Mapping[float, tuple[str, ...]]
STRONG, WEAK, NEGATED = 1.4, 0.5, -0.9
NOT_TOO = -0.5
_DEGREES = {
    STRONG: ("very", "really", "extremely", "super", "so", "incredibly", "highly", "truly"),
    1.0: ("quite", "fairly", "rather", "pretty", "nice and", "always"),
    WEAK: ("a little", "a bit", "slightly", "somewhat", "kind of", "mildly", "just a little"),
}
_NOUN_DEGREES = {
    STRONG: ("lots of", "a lot of", "tons of", "much more", "far more", "a lot more", "loads of"),
    1.0: ("more", "some", "enough", "plenty of"),
    WEAK: ("a little", "a bit of", "a touch of", "a hint of", "a little more", "a bit more",
           "slightly more"),
}  # fmt: skip
_NOUN_LESS = {
    -STRONG: ("much less", "far less", "a lot less"),
    NEGATED: ("less", "fewer", "not so much", "not much"),
    -WEAK: ("a little less", "a bit less", "slightly less"),
}
_NOT = {
    NEGATED: ("not", "never", "nothing", "not at all", "isn't", "no"),
    NOT_TOO: ("not too", "not so", "not very", "nothing too", "not overly", "not really"),
}
_PICTURES = ("pictures", "images", "scenes", "art", "paintings", "illustrations", "ones", "things")
_LIKE = (
    "Prefers", "Likes", "Loves", "Enjoys", "I like", "I love", "I prefer", "I enjoy", "I want",
    "I really like", "I adore", "Give me", "Please show me", "My favourite is", "My favorite is",
    "I am fond of", "I'm into", "I am looking for", "I would like", "I'd like", "Favours",
    "I always choose", "Show me", "Wants", "I appreciate", "Please use", "With", "I need",
)  # fmt: skip
_AVOID = (
    "Avoids", "Dislikes", "I dislike", "I hate", "I do not like", "I don't like", "Hates", "Avoid",
    "Please avoid", "No", "Without", "Never", "I can't stand", "I do not want", "I don't want",
    "I'm not a fan of", "Please no", "I am tired of", "Doesn't like", "Does not like", "Not",
    "I never like", "I don't enjoy", "Don't use", "There should be no", "Free of",
)  # fmt: skip
_SHOULD_BE = (
    "Make it", "Make them", "It should be", "I like it", "I want it", "They should be", "Keep it",
    "My pictures should be", "I like my pictures", "I like them", "I want everything", "Something",
    "Pictures should be", "I like it when it is", "Please make it", "I want my images", "Anything",
)  # fmt: skip
_SHOULD_NOT_BE = (
    "It should not be", "I don't like it", "I don't like it when it is", "Don't make it",
    "They shouldn't be", "It is too", "They are too", "It's too", "Please don't make it",
    "I don't want it", "Pictures should not be", "Too", "Everything is too", "Nothing",
)  # fmt: skip
_UNREAD = (  # noqa: SIM905
    "elephants music jazz my grandmother football mountains and rivers the sea cats dogs robots "
    "trains space dragons castles coffee on Sundays for my living room as a gift if possible "
    "thanks please always hello there like in old films made by hand I think you know what I mean "
    "oil watercolour manga photography portraits people faces history science fiction wood stone"
).split()


@dataclass(frozen=True)
class Statement:
    """A text, what it states of each look, and which terms in it, in order, state how much."""

    text: str
    says_L: Floats
    terms: tuple[Term, ...] = ()


def typed(rng: Generator) -> Statement:
    """One to three clauses in a person's own words, none against another."""
    says_L: Floats = np.zeros(len(LOOKS), dtype=np.float32)
    parts: list[str] = []
    terms: list[Term] = []
    for _ in range(int(rng.choice((1, 2, 3), p=(0.55, 0.35, 0.1)))):
        clause = _CLAUSES[int(rng.choice(len(_CLAUSES), p=_CLAUSE_SHARES))](rng, says_L)
        if (clause.says_L * says_L < 0).any():
            continue
        parts.append(clause.text)
        terms += clause.terms
        says_L = either(says_L, clause.says_L)
    text = parts[0]
    for part in parts[1:]:
        joint = str(rng.choice((". ", ", ", " but ", " and ", "; ", ". "), p=_JOINTS))
        text += joint + (part if joint == ". " else _lower_first(part))
    return Statement(_as_typed(text, rng), says_L, tuple(terms))


def edited(own: str, rng: Generator) -> Statement:
    """A profile in the model's own wording, other than its own: a few looks, or more of them.

    Or the own text with something added that does not speak against it.
    """
    if own and rng.random() < 0.2:
        kept = of_profile(own)
        more = typed(rng)
        if not ((more.says_L * kept.says_L) < 0).any():
            says_L = either(kept.says_L, more.says_L)
            return Statement(f"{own} {more.text}", says_L, kept.terms + more.terms)
    few = rng.random() < 0.5
    if few:
        taste_L = np.zeros(len(LOOKS), dtype=np.float32)
        looks = rng.choice(len(LOOKS), int(rng.integers(1, 3)), replace=False)
        taste_L[looks] = rng.choice((-1.0, 1.0), len(looks))
    else:
        taste_L = Population().sample(1, rng)[0]
    if few and rng.random() < 0.5:
        text, stated = profile_text.typed_profile(taste_L, rng)
        says_L = np.zeros(len(LOOKS), dtype=np.float32)
        says_L[stated] = np.sign(taste_L[stated])
        return Statement(text, says_L)
    return of_profile(profile_text.profile(taste_L))


def unread(rng: Generator) -> Statement:
    """Words that say nothing of any look."""
    words = rng.choice(_UNREAD, int(rng.integers(1, 6)))
    start = f"{rng.choice(_LIKE)} " if rng.random() < 0.5 else ""
    return Statement(f"{start}{' '.join(words)}", np.zeros(len(LOOKS), dtype=np.float32))


def of_profile(text: str) -> Statement:
    """What a profile in the model's own wording states."""
    says_L = np.zeros(len(LOOKS), dtype=np.float32)
    found: list[tuple[int, Term]] = []
    for look, poles in enumerate(profile_text.grammar().looks):
        for sign, (phrase, liked) in zip((-1.0, 1.0), poles, strict=True):
            if phrase in text:
                says_L[look] = sign
                says = sign * np.eye(len(LOOKS), dtype=np.float32)[look]
                term = Term(phrase, says, 1.0 if liked else -1.0)
                found.append((text.index(phrase), term))
    return Statement(text, says_L, tuple(term for _, term in sorted(found, key=lambda f: f[0])))


def known_words() -> KnownWords:
    """Every word of the training's texts: those that name looks, and those around them."""
    naming = [
        *(term.text for term in (*vocabulary.adjectives(), *vocabulary.nouns())),
        *(term.text for term in vocabulary.comparatives()),
        *profile_text.typed_phrases(),
    ]
    others = [
        *(word for words in (*_DEGREES.values(), *_NOUN_DEGREES.values()) for word in words),
        *(word for words in (*_NOUN_LESS.values(), *_NOT.values()) for word in words),
        *_PICTURES, *_LIKE, *_AVOID, *_SHOULD_BE, *_SHOULD_NOT_BE,
        "rather than instead of over not but and with the a an or in of to is are be at up off",
    ]  # fmt: skip
    around = _all_words(others)
    return KnownWords(_all_words(naming) - around, around)


def _all_words(phrases: Sequence[str]) -> frozenset[str]:
    return frozenset(word for phrase in phrases for word in words_of(phrase))


def _things(rng: Generator, said_L: Floats) -> Statement:
    """ "I love a lot of colour and thick outlines"."""
    terms = [_with_degree(t, _NOUN_DEGREES, rng, 0.25) for t in _drawn("nouns", rng, said_L, 3)]
    verb = "" if rng.random() < 0.15 else f"{rng.choice(_LIKE)} "
    return _clause(verb, terms, "", 1.0, rng)


def _no_things(rng: Generator, said_L: Floats) -> Statement:
    terms = _drawn("nouns", rng, said_L, 2, sign=-1)
    return _clause(f"{rng.choice(_AVOID)} ", terms, "", NEGATED, rng)


def _less(rng: Generator, said_L: Floats) -> Statement:
    terms = _drawn("nouns", rng, said_L, 1, sign=-1)
    factor, word = _one_of(_NOUN_LESS, rng)
    verb = "" if rng.random() < 0.6 else f"{rng.choice(_LIKE)} "
    return _clause(f"{verb}{word} ", terms, "", factor, rng)


def _such_pictures(rng: Generator, said_L: Floats) -> Statement:
    """ "I love warm, bright, cheerful pictures"."""
    terms = [_with_degree(t, _DEGREES, rng, 0.2) for t in _drawn("adjectives", rng, said_L, 3)]
    return _clause(f"{rng.choice(_LIKE)} ", terms, f" {rng.choice(_PICTURES)}", 1.0, rng)


def _no_such_pictures(rng: Generator, said_L: Floats) -> Statement:
    terms = _drawn("adjectives", rng, said_L, 2, sign=-1)
    return _clause(f"{rng.choice(_AVOID)} ", terms, f" {rng.choice(_PICTURES)}", NEGATED, rng)


def _should_be(rng: Generator, said_L: Floats) -> Statement:
    terms = [_with_degree(t, _DEGREES, rng, 0.3) for t in _drawn("adjectives", rng, said_L, 3)]
    verb = "" if rng.random() < 0.35 else f"{rng.choice(_SHOULD_BE)} "
    return _clause(verb, terms, "", 1.0, rng)


def _should_not_be(rng: Generator, said_L: Floats) -> Statement:
    terms = _drawn("adjectives", rng, said_L, 2, sign=-1)
    return _clause(f"{rng.choice(_SHOULD_NOT_BE)} ", terms, "", NEGATED, rng)


def _not_so(rng: Generator, said_L: Floats) -> Statement:
    terms = _drawn("adjectives", rng, said_L, 1, sign=-1)
    factor, word = _one_of(_NOT, rng)
    verb = "" if rng.random() < 0.6 else f"{rng.choice(_SHOULD_BE)} "
    return _clause(f"{verb}{word} ", terms, "", factor, rng)


def _more_so(rng: Generator, said_L: Floats) -> Statement:
    """ "A bit brighter, please"; "more colourful"."""
    if rng.random() < 0.3:
        terms = [Term(f"more {t.text}", t.says_L) for t in _drawn("adjectives", rng, said_L, 2)]
    else:
        terms = _drawn("comparatives", rng, said_L, 2)
        degrees: Degrees = {**_DEGREES, STRONG: ("much", "a lot", "far")}
        terms = [_with_degree(t, degrees, rng, 0.4, (STRONG, WEAK)) for t in terms]
    verb = "" if rng.random() < 0.4 else f"{rng.choice(_SHOULD_BE)} "
    return _clause(verb, terms, ", please" if rng.random() < 0.2 else "", 1.0, rng)


def _rather_than(rng: Generator, said_L: Floats) -> Statement:
    pair = vocabulary.OPPOSITES[int(rng.integers(len(vocabulary.OPPOSITES)))]
    first, second = pair if rng.random() < 0.5 else pair[::-1]
    says_L = next(t.says_L for t in vocabulary.adjectives() if t.text == first)
    if (says_L * said_L).any():
        return _things(rng, said_L)
    joint = rng.choice((" rather than ", ", not ", " instead of ", " over ", " and not "))
    verb = "" if rng.random() < 0.4 else f"{rng.choice((*_SHOULD_BE, *_LIKE))} "
    pictures = f" {rng.choice(_PICTURES)}" if rng.random() < 0.4 else ""
    text = f"{verb}{first}{joint}{second}{pictures}"
    return Statement(text, says_L.copy(), (Term(first, says_L), Term(second, says_L, -1.0)))


_Clause = Callable[[Generator, Floats], Statement]
_CLAUSES: tuple[_Clause, ...] = (
    _things, _no_things, _less, _such_pictures, _no_such_pictures, _should_be, _should_not_be,
    _not_so, _more_so, _rather_than,
)  # fmt: skip
_CLAUSE_SHARES = (0.2, 0.15, 0.06, 0.18, 0.06, 0.12, 0.06, 0.06, 0.06, 0.05)
_JOINTS = (0.35, 0.2, 0.15, 0.15, 0.05, 0.1)


def _clause(
    before: str, terms: Sequence[Term], after: str, factor: float, rng: Generator
) -> Statement:
    """The terms in a list; what they say, by that factor."""
    texts = [term.text for term in terms]
    last = str(rng.choice((" and ", " or ", ", "), p=(0.7, 0.05, 0.25) if factor > 0 else _OR))
    listed = texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])}{last}{texts[-1]}"
    says_L = np.zeros(len(LOOKS), dtype=np.float32)
    said: list[Term] = []
    for term in terms:
        stated_L = term.says_L
        if factor < 0:  # "not moody" says only that it is not dark
            stated_L = np.where(np.abs(stated_L) == np.abs(stated_L).max(), stated_L, 0.0)
        said.append(Term(term.text, factor * stated_L, factor))
        says_L = either(says_L, said[-1].says_L)
    return Statement(f"{before}{listed}{after}", says_L, tuple(said))


_OR = (0.35, 0.4, 0.25)


def _drawn(kind: str, rng: Generator, said_L: Floats, most: int, sign: int = 1) -> list[Term]:
    """One to ``most`` terms of different looks; none speaks of what has been said already."""
    by_look = vocabulary.by_look(kind)
    said_L = said_L.copy()
    terms: list[Term] = []
    count = int(rng.integers(1, most + 1))
    for look in rng.permutation([i for i, terms in enumerate(by_look) if terms]):
        term = by_look[look][int(rng.integers(len(by_look[look])))]
        if said_L[look] or ((said_L * term.says_L * sign) < 0).any():
            continue
        terms.append(term)
        said_L = said_L + sign * term.says_L
        if len(terms) == count:
            break
    if not terms:  # every look has been spoken of
        look = int(np.abs(said_L).argmin())
        terms = [by_look[look][0]] if by_look[look] else [vocabulary.adjectives()[0]]
    return terms


def _with_degree(
    term: Term,
    degrees: Degrees,
    rng: Generator,
    share: float,
    of: tuple[float, ...] | None = None,
) -> Term:
    if rng.random() >= share:
        return term
    known = {factor: degrees[factor] for factor in of or tuple(degrees)}
    factor, word = _one_of(known, rng)
    return Term(f"{word} {term.text}", factor * term.says_L)


def _one_of(words: Degrees, rng: Generator) -> tuple[float, str]:
    factor = list(words)[int(rng.integers(len(words)))]
    return factor, str(rng.choice(words[factor]))


def either(a_L: Floats, b_L: Floats) -> Floats:
    """Where both speak of a look, the one that says more."""
    return np.where(np.abs(a_L) >= np.abs(b_L), a_L, b_L)


def _as_typed(text: str, rng: Generator) -> str:
    if rng.random() < 0.08:
        word = str(rng.choice(_UNREAD))
        text = f"{text}, {word}" if rng.random() < 0.5 else f"{word}, {text}"
    text = text[:1].upper() + text[1:] if rng.random() < 0.6 else text
    case = rng.random()
    text = text.upper() if case < 0.03 else text.lower() if case < 0.3 else text
    return text + str(rng.choice((".", "", "!"), p=(0.6, 0.35, 0.05)))


def _lower_first(text: str) -> str:
    return text if text.startswith(("I ", "I'")) else text[:1].lower() + text[1:]
