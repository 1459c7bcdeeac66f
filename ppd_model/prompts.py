"""The chain-of-thought prompts that turn four labelled pairs into a profile (paper, Table 2).

Two variants: ``paper`` is Table 2's wording; ``released`` is the wording of the authors' released
Stage 1, which names the images preferred and dispreferred and shows the preferred one first.
A prompt is text in Qwen's chat format with one ``<image>`` for each of the eight images. What a
person typed is data: it goes in as one line with every special token of the tokenizer broken up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Variant = Literal["paper", "released"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)

N_PAIRS = 4
"""Pairs behind one embedding (paper, section 4.2: N = 4)."""

IMAGE_TOKEN = "<image>"  # noqa: S105
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
CHAT_TOKENS = (TURN_START, TURN_END, IMAGE_TOKEN)
PROFILE_HEADING = "User Profile:"

_PAPER_SYSTEM = (
    "You are an expert in image aesthetics and have been asked to predict which image a user "
    "would prefer based on the examples provided."
)
_PAPER_OPENING = (
    "You will be shown a few examples of preferred and dispreferred images that a user has labeled."
)
_PAPER_STEPS = """\
1. Describe each image in terms of style, visual quality, and image aesthetics.

2. Explain the differences between the two images in terms of style, visual quality, and image \
aesthetics.

3. After you have described all of the images, summarize the differences between the preferred \
and dispreferred images into a user profile.

Format your response as follows for the four pairs of images:

"""

_RELEASED_SYSTEM = "You are a helpful assistant."
_RELEASED_OPENING = "You will be shown a few examples of preferred and dispreferred images."
_RELEASED_STEPS = """\
You will be judging the images according to their style, visual quality, and image aesthetics. \
Follow the instructions below to compare the images:
1. For each pair of images, describe the preferred image and the dispreferred image.
2. Explain the differences between the two images in terms of style, visual quality, and image \
aesthetics.
3. After you have described all of the images, summarize the differences between the preferred \
and dispreferred images into a user profile.

Format your response as follows for the four pairs of images:
"""

_NO_PICTURES = (
    "The user has not labeled any images, but has described their taste in images in their own "
    "words. These are their user profile."
)


class NoProfileError(ValueError):
    """A response holds no profile."""


@dataclass(frozen=True)
class LabelledCaption:
    """What of one choice is text: the caption, and which image (0 or 1) was preferred."""

    caption: str
    preferred: int


@dataclass(frozen=True)
class Prompt:
    """``text`` ends where the assistant's answer begins; ``images`` lists (pair, image) in order
    of the ``<image>`` placeholders, both counted from 0."""

    text: str
    images: list[tuple[int, int]]


@dataclass(frozen=True)
class ParsedResponse:
    """The profile of a response, and its likes and dislikes as short phrases."""

    profile: str
    likes: list[str]
    dislikes: list[str]


def check_variant(variant: str) -> Variant:
    """The variant of that name. Raises ValueError that lists the names there are."""
    for known in VARIANTS:
        if variant == known:
            return known
    raise ValueError(f"unknown prompt variant {variant!r}; known: {', '.join(VARIANTS)}")


def build_prompt(
    pairs: Sequence[LabelledCaption],
    variant: Variant = "paper",
    special_tokens: Iterable[str] = CHAT_TOKENS,
) -> Prompt:
    """The prompt for four labelled pairs.

    ``special_tokens`` are the strings that the tokenizer would not read as plain text.
    Raises ValueError unless there are exactly four pairs, each preferring image 0 or 1.
    """
    if len(pairs) != N_PAIRS:
        raise ValueError(f"{len(pairs)} pairs; expected exactly {N_PAIRS}")
    for pair in pairs:
        if pair.preferred not in (0, 1):
            raise ValueError(f"preferred image {pair.preferred!r}; expected 0 or 1")
    tokens = tuple(special_tokens)
    pieces = [_head(variant)]
    images: list[tuple[int, int]] = []
    for number, pair in enumerate(pairs):
        first = pair.preferred if variant == "released" else 0
        images += [(number, first), (number, 1 - first)]
        before, middle, after = _pair_frame(variant, number, pair.preferred)
        caption = as_data(pair.caption, tokens)
        pieces += [before, " ", caption, _first_image(variant), IMAGE_TOKEN]
        pieces += [middle, IMAGE_TOKEN, after]
    pieces.append(_tail(variant))
    return Prompt("".join(pieces), images)


def build_words_prompt(variant: Variant = "paper") -> Prompt:
    """The prompt for a person of whom nothing is known but their own words: no pictures.

    It is not the paper's. The words stand in the response, as the profile.
    """
    system = _PAPER_SYSTEM if variant == "paper" else _RELEASED_SYSTEM
    return Prompt(
        f"{TURN_START}system\n{system}{TURN_END}\n"
        f"{TURN_START}user\n{_NO_PICTURES}{TURN_END}\n{TURN_START}assistant\n",
        [],
    )


def response_headings(variant: Variant, pair: int) -> tuple[str, str, str]:
    """The headings before the first description, the second, and the differences of a pair.

    The first of them carries the blank line that parts it from the pair before.
    """
    start = f"Pair {pair + 1}:" if pair == 0 else f"\n\nPair {pair + 1}:"
    if variant == "paper":
        return f"{start} Image 1:", " Image 2:", " Differences:"
    return f"{start}\nPreferred Image:", "\nDispreferred Image:", "\nDifferences:"


def preference_phrases(variant: Variant) -> list[str]:
    """The phrases, one of them after every pair's images, that tell which was preferred."""
    return sorted({_pair_frame(variant, 0, preferred)[2] for preferred in (0, 1)})


def profile_heading() -> str:
    """What stands between the last pair and the profile in a response."""
    return f"\n\n{PROFILE_HEADING}"


def fixed_phrases(variant: Variant) -> list[str]:
    """Every stretch of text that all prompts and all well-formed responses of a variant share.

    mini's tokenizer makes one token of each, which keeps its sequences short. The text is the
    same with any other tokenizer.
    """
    phrases = [_head(variant), _tail(variant), _first_image(variant), profile_heading()]
    phrases.append(build_words_prompt(variant).text)
    for number in range(N_PAIRS):
        for preferred in (0, 1):
            phrases += _pair_frame(variant, number, preferred)
        phrases += response_headings(variant, number)
    return sorted({phrase for phrase in phrases if phrase})


def as_data(text: str, special_tokens: Iterable[str] = CHAT_TOKENS) -> str:
    """Somebody's text as one line that no tokenizer reads as an instruction of the template.

    White space and control characters become single spaces; each special token found is broken
    by a space after its first visible character, so that the words stay readable.
    """
    one_line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    tokens = sorted({token for token in special_tokens if token.strip()}, key=len, reverse=True)
    # A break only ever adds a space, so few rounds suffice; a token that is one visible
    # character long cannot be broken, and the encoder's own check refuses it.
    for _ in range(4):
        found = [t for t in tokens if t.strip() in one_line and len(t.strip()) > 1]
        if not found:
            break
        for token in found:
            word = token.strip()
            one_line = one_line.replace(word, f"{word[0]} {word[1:]}")
    return one_line


def with_profile(response: str, profile: str, special_tokens: Iterable[str] = CHAT_TOKENS) -> str:
    """A response whose profile text is replaced by somebody's own (design, decision 5).

    Raises ValueError if the text is blank.
    """
    text = as_data(profile, special_tokens)
    if not text:
        raise ValueError("blank profile text")
    return f"{with_heading(response)} {text}"


def has_profile(response: str) -> bool:
    """Whether a model's response ends in a profile: words, and no further part of the format."""
    try:
        _, profile = split_profile(response)
    except NoProfileError:
        return False
    return any(c.isalpha() for c in profile) and not _PART_OF_FORMAT.search(profile)


def with_heading(response: str) -> str:
    """A response that has no profile, up to the profile's heading, to be continued from there."""
    head = response.split(TURN_END)[0].rstrip()
    headings = list(_HEADING.finditer(head))
    return head[: headings[-1].end()] if headings else f"{head}{profile_heading()}"


def split_profile(response: str) -> tuple[str, str]:
    """A response up to and with its last profile heading, and the profile text after it.

    Raises NoProfileError if there is no heading, or nothing after it.
    """
    matches = list(_HEADING.finditer(response))
    if not matches:
        raise NoProfileError(f"the response has no {PROFILE_HEADING!r}: {response[-200:]!r}")
    end = matches[-1].end()
    profile = response[end:].split(TURN_END)[0].strip()
    if not profile:
        raise NoProfileError(f"the response has nothing after {PROFILE_HEADING!r}")
    return response[:end], profile


def parse_response(response: str) -> ParsedResponse:
    """The profile of a response with the likes and dislikes that its sentences state.

    Works by sentence and clause: a clause with a word of avoiding is a dislike, the others are
    likes. Raises NoProfileError if there is no profile in the response.
    """
    _, profile = split_profile(response)
    likes, dislikes = likes_and_dislikes(profile)
    return ParsedResponse(profile, likes, dislikes)


# Chat models like to set headings in bold; "User profile" is as good.
_HEADING = re.compile(r"user profile\**:\**", re.IGNORECASE)
_PART_OF_FORMAT = re.compile(
    r"\bpair \d:|\b(dis)?preferred image:|\bimage [12]:|\bdifferences:", re.IGNORECASE
)
_DISLIKES = re.compile(
    r"\b(avoid(s|ing)?|dislik(e|es|ed|ing)|hat(e|es)|reject(s|ed)?|avers(e|ion)|"
    r"(does|do|did|is|are|would|can)(n['’]t| not)|cannot|never|less|without|free of|no|not|"
    r"away from|steers? clear|put off|bothered by|too|overly)\b",
    re.IGNORECASE,
)
_STATES_TASTE = re.compile(
    r"\b(prefer(s|red|ence|ences)?( for)?|lik(e|es|ed|ing)|lov(e|es)|enjoy(s|ed)?|"
    r"favou?r(s|ed|ing)?|appreciat(e|es|ion)|drawn (to|toward|towards)|fond of|values?|wants?|"
    r"gravitat(e|es) (to|toward|towards)|leans? (to|toward|towards)|choos(e|es)|more|"
    r"avoid(s|ing)?|dislik(e|es|ed)|hat(e|es)|reject(s|ed)?|avers(e|ion) to|away from|"
    r"steers? clear of|put off by|bothered by|without|free of|less|no|not|never)\b",
    re.IGNORECASE,
)
_FLIPS = re.compile(r"\b(?:rather than|instead of|as opposed to|over)\b", re.IGNORECASE)
_NEW_CLAUSE = re.compile(
    r"[;:]|,? \b(?:but|while|whereas|although|though|and (?=(?:they |he |she |I )?(?:avoid|dislik|"
    r"hat|reject|does|do|is|are|tends?|prefer|lik|lov|enjoy|steer|less|no)\b\w*))\b|"
    r",(?= (?:avoid|dislik|reject|not|no|less|never)\w*\b)",
    re.IGNORECASE,
)
_FILLER = re.compile(
    r"^(?:(?:to|for|of|with|that|which|have|has|having|are|is|be|being|seeing|see|a|an|the|"
    r"images?|pictures?|photos?|artworks?|anything|things|those|featuring|feature|features|"
    r"show|shows|showing|it|them|they|very|much|when|also|both|any|or|and|all)\b[ ,]*)+",
    re.IGNORECASE,
)
_LONGEST_PHRASE_CHARS = 80
_MOST_PHRASES = 8


def likes_and_dislikes(profile: str) -> tuple[list[str], list[str]]:
    """Short phrases of what a profile text says is liked and disliked; either may be empty."""
    likes: list[str] = []
    dislikes: list[str] = []
    for sentence in re.split(r"(?<=[.!?])\s+|\n+|[•*]\s", profile):
        for clause in _NEW_CLAUSE.split(sentence):
            for number, part in enumerate(_FLIPS.split(clause or "")):
                negative = bool(_DISLIKES.search(part)) != (number > 0)
                _collect(part, dislikes if negative else likes)
    return likes[:_MOST_PHRASES], dislikes[:_MOST_PHRASES]


def _collect(clause: str, phrases: list[str]) -> None:
    cues = list(_STATES_TASTE.finditer(clause))
    rest = clause[cues[-1].end() :] if cues else clause
    if not cues and re.search(r"\b(the user|they|he|she|this person|I)\b", rest, re.IGNORECASE):
        return  # a sentence about the person that states no taste
    for piece in re.split(r",|\band\b|\bor\b", rest):
        phrase = _FILLER.sub("", piece.strip(" .!?\"'-–—:;*")).strip(" .!?\"'-–—:;*")
        known = {p.lower() for p in phrases}
        if 2 < len(phrase) <= _LONGEST_PHRASE_CHARS and phrase.lower() not in known:
            phrases.append(phrase)


def _head(variant: Variant) -> str:
    system, opening = (
        (_PAPER_SYSTEM, _PAPER_OPENING)
        if variant == "paper"
        else (_RELEASED_SYSTEM, _RELEASED_OPENING)
    )
    return f"{TURN_START}system\n{system}{TURN_END}\n{TURN_START}user\n{opening}\n\n"


def _pair_frame(variant: Variant, number: int, preferred: int) -> tuple[str, str, str]:
    """What stands before a pair's caption, between its two images, and after the second."""
    if variant == "paper":
        return (
            f"Here is Pair {number + 1}: Here is the caption:",
            " Here is Image 2: ",
            f" Prediction of user preference: {preferred + 1}\n\n",
        )
    # "2st" is what the released code writes.
    return (
        f"Here is the {number + 1}st pair of images:\n\nHere is the caption:",
        " This is the preferred image.\n\n",
        " This is the dispreferred image.\n\n",
    )


def _first_image(variant: Variant) -> str:
    return " Here is Image 1: " if variant == "paper" else "\n\n"


def _tail(variant: Variant) -> str:
    steps = _PAPER_STEPS if variant == "paper" else _RELEASED_STEPS
    pairs = "".join(
        "".join(f"{heading} [Description]" for heading in response_headings(variant, number))
        for number in range(N_PAIRS)
    )
    response_format = f"{pairs}{profile_heading()} [Description]"
    return f"{steps}{response_format}{TURN_END}\n{TURN_START}assistant\n"
