"""What of a typed text can be read, told without the tokenizer and as the tokenizer reads it."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from ppd_model.nets.text_encoder import load_word_tokenizer
from ppd_model.pipeline import MINI_WEIGHTS_DIR
from ppd_model.presets import get_preset
from ppd_model.words import Vocabulary, is_blank, pictographs, split_words, vocabulary_of
from tests.typed_texts import INVISIBLE, typed_texts

MINI = get_preset("mini")
POOL = Path(__file__).parents[3] / "service" / "pool"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return load_word_tokenizer(MINI_WEIGHTS_DIR / "text_tokenizer.json", 24)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    found = vocabulary_of(MINI, None)
    assert found is not None
    return found


@pytest.mark.parametrize("text", ["", " \n\t", "\u2800", "\0\x1b", INVISIBLE, *INVISIBLE])
def test_what_nobody_sees_is_blank(text: str) -> None:
    assert is_blank(text)


def test_all_that_unicode_lets_programs_ignore_is_blank() -> None:
    ignorable = Split(Regex(r"\p{Default_Ignorable_Code_Point}"), "isolated")
    every = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF)
    found = [c for c, (start, end) in ignorable.pre_tokenize_str(every) if end - start == 1]
    found = [c for c in found if ignorable.pre_tokenize_str(f"{c}ab")[0][0] == c]
    assert len(found) > 4000
    assert [f"{ord(c):x}" for c in found if not is_blank(c)] == []


@pytest.mark.parametrize("text", ["a", ".", "\u5b57", "\U0001f600", "\u05d0", "\u0301", "\u200b1"])
def test_what_somebody_sees_is_not_blank(text: str) -> None:
    assert not is_blank(text)


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1))
def test_letters_numbers_and_signs_are_never_blank(text: str) -> None:
    fillers = "\u115f\u1160\u2800\u3164\uffa0\ufffc\ufffd"
    assert not is_blank(text.translate(dict.fromkeys(map(ord, fillers))) or "a")


def test_the_pool_names_the_words_that_the_tokenizer_knows(vocabulary: Vocabulary) -> None:
    named = json.loads((POOL / "vocabulary.json").read_text(encoding="utf-8"))["words"]
    assert vocabulary.words == set(named)


def test_a_published_text_encoder_reads_any_words() -> None:
    assert vocabulary_of(get_preset("stable-cascade"), None) is None


def test_without_the_tokenizers_file_nobody_can_tell(tmp_path: Path) -> None:
    assert vocabulary_of(MINI, tmp_path) is None


@settings(max_examples=500, deadline=None)
@given(text=typed_texts())
@example(text="a\u0301 bo\u00adat \uff42\uff4f\uff41\uff54 K\u212a")
def test_known_words_are_found_as_the_tokenizer_finds_them(
    tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary, text: str
) -> None:
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    read = [tokenizer.convert_ids_to_tokens(i) for i in ids if i != tokenizer.unk_token_id]
    assert [word for word in split_words(text) if word in vocabulary.words] == read


def test_what_is_cut_off_is_not_read(vocabulary: Vocabulary) -> None:
    assert vocabulary.most_words == 22
    assert vocabulary.reads("zeppelin " * 21 + "boat")
    assert not vocabulary.reads("zeppelin " * 22 + "boat")
    assert "cut after 22 words" in vocabulary.why_unread("zeppelin " * 22 + "boat")
    assert vocabulary.why_unread("zeppelin") == "has no word that the model knows"


def test_pictographs_are_found_whole() -> None:
    astronaut = "\U0001f469\U0001f3fd\u200d\U0001f680"
    text = f"a {astronaut} on \u2764\ufe0f, <3 \u20ac"
    found = [text[start:end] for start, end in pictographs(text)]
    assert found == [astronaut, "\u2764\ufe0f"]
    assert all(unicodedata.category(run[0]) == "So" for run in found)
