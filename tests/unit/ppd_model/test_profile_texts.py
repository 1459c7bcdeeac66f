"""What mini may write of a taste, and which words of a person's own it knows."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from ppd_model.profile_texts import AllowedTokens, Grammar, KnownWords, sentences, words_of
from ppd_model.prompts import likes_and_dislikes
from training.pretrain.vlm import profile_text

SMALL = Grammar(
    looks=((("dark", True), ("light", True)), (("lines", False), ("ink", True))), most=2
)
HEADING, END = 0, 1


def tokens_of() -> Callable[[str], list[int]]:
    """A token for each word, numbered from 2 as they come."""
    numbers: dict[str, int] = {}
    return lambda text: [numbers.setdefault(word, 2 + len(numbers)) for word in text.split()]


def allowed(tokens: Callable[[str], list[int]]) -> AllowedTokens:
    return AllowedTokens(SMALL, tokens, heading=HEADING, end=END, vocabulary=20)


def test_a_profile_is_two_sentences_at_most() -> None:
    assert sentences(["a", "b", "c"], ["d"]) == "Prefers a, b and c. Avoids d."
    assert sentences([], ["d", "e"]) == "Avoids d and e."


def test_every_profile_that_may_be_written_names_each_look_once() -> None:
    grammar = profile_text.grammar()
    profiles = list(grammar.every_profile())
    assert len(profiles) == len(set(profiles)) == 3488
    for profile in profiles[::7]:
        named = [
            look
            for look, poles in enumerate(grammar.looks)
            for phrase, _ in poles
            for _ in range(profile.count(phrase))
        ]
        assert len(named) == len(set(named)), profile


def test_the_likes_and_dislikes_read_from_a_profile_are_those_it_names() -> None:
    grammar = profile_text.grammar()
    for poles in itertools.product((0, 1), repeat=3):
        for first in range(len(grammar.looks) - 2):
            named = [(first + i, pole) for i, pole in enumerate(poles)]
            phrases = [grammar.looks[look][pole] for look, pole in named]
            likes, dislikes = likes_and_dislikes(grammar.profile(named))
            assert likes == [p for p, liked in phrases if liked]
            assert dislikes == [p.removeprefix("a ") for p, liked in phrases if not liked]


def test_before_the_heading_every_token_may_come() -> None:
    assert allowed(tokens_of())(0, torch.tensor([7, 8, 9])) == list(range(20))


def test_after_the_heading_only_a_profile_may_come_and_then_the_end() -> None:
    tokens = tokens_of()
    rule = allowed(tokens)
    for profile in SMALL.every_profile():
        ids = [9, HEADING, *tokens(profile)]
        for place in range(2, len(ids)):
            assert ids[place] in rule(0, torch.tensor(ids[:place]))
        assert END in rule(0, torch.tensor(ids))
    twice = [9, HEADING, *tokens("Prefers dark and")]
    assert tokens("dark.")[0] not in rule(0, torch.tensor(twice))
    assert rule(0, torch.tensor([HEADING, 19, 19])) == [END]


def test_a_grammar_and_words_come_back_from_their_file() -> None:
    assert Grammar.read(SMALL.config()) == SMALL
    words = KnownWords(frozenset({"warm"}), frozenset({"very"}))
    assert KnownWords.read(words.config()) == words
    for broken in ({}, {"looks": [], "most": 2}, {"looks": [[["a", True]]], "most": 1}):
        with pytest.raises(ValueError, match="not a grammar"):
            Grammar.read(broken)
    with pytest.raises(ValueError, match="not a list of words"):
        KnownWords.read({"naming": ["a"]})


def test_words_are_told_apart_in_any_script_and_case() -> None:
    typed = "Close-ups, DON’T; 'quoted' 3 žluťoučký"
    assert words_of(typed) == ["close", "ups", "don't", "quoted", "3", "žluťoučký"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("हिन्दी चित्र", ["हिन्दी", "चित्र"]),
        ("cafe\u0301", ["caf\u00e9"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("8k, 3d", ["8k", "3d"]),
        ("\uff37\uff21\uff32\uff2d", ["warm"]),
        ("\u2764\ufe0f \u200d '", []),
    ],
)
def test_words_of_any_script_stay_whole(typed: str, words: list[str]) -> None:
    assert words_of(typed) == words


def test_numbers_and_pictographs_that_are_not_known_are_named() -> None:
    words = KnownWords(frozenset({"warm"}), frozenset({"and"}))
    fox, fire = "\U0001f98a", "\U0001f525"
    assert words.unread(f"{fox}{fire}") == [fox + fire]
    assert words.unread(f"warm {fox} and zebras{fire} 123 {fox}") == [fox, "zebras", fire, "123"]
    assert not words.read_any(f"{fox} 123")
    assert words.read_any(f"{fox} and")


def test_what_is_not_known_is_named_once_in_order() -> None:
    words = KnownWords(frozenset({"warm"}), frozenset({"and", "very"}))
    assert words.unread("Zebras and very WARM zithers, zebras") == ["zebras", "zithers"]
    assert words.name_a_look("very warm")
    assert not words.name_a_look("and very zebras")
