"""Which captions are edits of each other."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.near_captions import families, normal


def together(*captions: str, typed_by: list[list[int]] | None = None, near: float = 0.7) -> bool:
    """Whether all of them are one family; one person's, unless told."""
    own = [list(range(len(captions)))] if typed_by is None else typed_by
    found = families(captions, [np.array(each) for each in own], near)
    return len(found.key_F) == 1


@pytest.mark.parametrize(
    "edit",
    [
        "A cat, sitting on a MAT!",
        "a cat sitting on a red mat",
        "a cat sitting on the mat",
        "on a mat a cat sitting",
        "a cat sitting on a mat, oil painting, highly detailed, 8k, trending, masterpiece",
    ],
)
def test_an_edit_is_the_same_caption(edit: str) -> None:
    assert together("a cat sitting on a mat", edit)


@pytest.mark.parametrize(
    "other", ["a cat", "a dog running over hills", "portrait of an old man, oil painting"]
)
def test_what_only_resembles_it_is_another(other: str) -> None:
    assert not together("a cat sitting on a mat", other)


def test_edits_of_edits_are_one_family() -> None:
    assert together("a b c d e f g", "a b c d e f h", "a b c d e i h", "a b c d j i h")
    assert not together("a b c d e f g", "a b c d j i h")


def test_people_share_a_family_only_through_equal_captions() -> None:
    edited = ("a small boat at sea at night", "a small boat at sea at dawn")
    assert not together(*edited, typed_by=[[0], [1]])
    assert together(*edited, "A small boat at sea at night", typed_by=[[0], [1, 2]])


def test_the_measure_is_an_option() -> None:
    assert not together("a cat on a mat", "a cat on a red mat", near=1.0)
    assert together("a cat on a mat", "a dog on a mat", near=0.5)


def test_captions_without_words_are_told_apart() -> None:
    assert normal("🐱") != normal("🐶")
    assert not together("🐱", "🐶")


def test_a_familys_name_does_not_depend_on_the_order() -> None:
    captions = ["b c d e f", "b c d e f g", "x y", "a b c d e f"]
    some = families(captions, [np.arange(4)], 0.7)
    turned = families(captions[::-1], [np.arange(4)], 0.7)
    names = [some.key_F[family] for family in some.family_K]
    assert names == [turned.key_F[family] for family in turned.family_K[::-1]]
    assert set(names) == {"a b c d e f", "x y"}


def test_many_captions_of_one_person_are_compared_in_parts() -> None:
    captions = [f"word{n} word{n + 1} word{n + 2}" for n in range(3000)]
    captions.append("word7 word8 word9 and more words than anybody asked for")
    assert len(families(captions, [np.arange(3001)], 0.7).key_F) == 3000
