"""Which answers are read together, and what several readings say together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppd_model.profile_texts import Grammar
from ppd_model.readings import MOST_ANSWERS, Expected, joined, read_together
from ppd_model.types import EncodedUser

LOOKS = Grammar(
    (
        (("dark scenes", True), ("sunny scenes", True)),
        (("outlines", False), ("outlines drawn", True)),
        (("close-ups", True), ("wide views", True)),
    ),
    2,
)


def read(text: str, emb_D: list[float], confidence: float = 0.5) -> EncodedUser:
    return EncodedUser(text, "so I thought", np.array(emb_D, dtype=np.float32), confidence)


@given(st.integers(0, 200))
def test_every_answer_that_is_read_counts_once_in_all(answers: int) -> None:
    sets = read_together(answers)
    if answers < 4:
        assert sets == []
        return
    assert all(len(one.places) == 4 for one in sets)
    read_places = {place for one in sets for place in one.places}
    assert read_places == set(range(min(read_places), answers))
    assert len(read_places) >= min(answers, MOST_ANSWERS - 3)
    assert len(sets) * 4 <= MOST_ANSWERS
    assert sum(one.weight for one in sets) * 4 == len(read_places)


@given(st.integers(4, 100))
def test_four_more_answers_leave_the_full_sets_as_they_were(answers: int) -> None:
    before = [one.places for one in read_together(answers) if one.weight == 1]
    after = [one.places for one in read_together(answers + 4)]
    assert before[-(MOST_ANSWERS // 4 - 2) :] == [p for p in before[-14:] if p in after]


def test_one_reading_is_given_back_as_it_is() -> None:
    alone = read("Prefers fog.", [1, 2])
    assert joined([alone], [0.25]) is alone


def test_the_embedding_is_the_weighted_mean() -> None:
    both = joined([read("a", [0, 4], 0.2), read("b", [3, 0], 0.8)], [1, 0.5])
    np.testing.assert_allclose(both.user_emb_D, [1, 8 / 3], rtol=1e-6)
    assert both.user_emb_D.dtype == np.float32
    assert both.confidence == pytest.approx(0.4)
    assert both.transcript == ""


def test_several_readings_are_drawn_to_what_is_expected_and_one_is_not() -> None:
    """The mean is (2, 0); the expected (8, 3) counts twice as much, of half the answers as much."""
    readings, expected_D = [read("a", [1, 0]), read("b", [3, 0])], np.array([8.0, 3.0])
    drawn = joined(readings, [1, 1], None, Expected(expected_D))
    np.testing.assert_allclose(drawn.user_emb_D, [6, 2], rtol=1e-6)
    assert drawn.user_emb_D.dtype == np.float32
    half = joined(readings, [1, 1], None, Expected(expected_D, share=0.5))
    np.testing.assert_allclose(half.user_emb_D, [5, 1.5], rtol=1e-6)
    assert joined(readings[:1], [1], None, Expected(expected_D)) is readings[0]


def test_without_a_grammar_the_text_is_that_of_the_nearest_and_newest_reading() -> None:
    readings = [read("far", [9, 0]), read("near", [1, 0]), read("near too", [1, 0])]
    assert joined(readings, [1, 1, 1]).profile == "near too"


def test_with_a_grammar_the_text_names_what_most_readings_say() -> None:
    readings = [
        read("Prefers sunny scenes and close-ups.", [1, 0]),
        read("Prefers dark scenes and close-ups.", [2, 0]),
        read("Prefers sunny scenes. Avoids outlines.", [3, 0]),
    ]
    together = joined(readings, [1, 1, 1], LOOKS)
    assert together.profile == "Prefers sunny scenes and close-ups."
    assert (together.likes, together.dislikes) == (["sunny scenes", "close-ups"], [])


def test_readings_that_contradict_each_other_in_all_leave_the_newest_text() -> None:
    readings = [read("Prefers dark scenes.", [1, 0]), read("Prefers sunny scenes.", [3, 0])]
    assert joined(readings, [1, 1], LOOKS).profile == "Prefers sunny scenes."


def test_a_given_text_stays() -> None:
    mine = "dark, as I like it"
    assert joined([read(mine, [1, 0]), read(mine, [3, 0])], [1, 1], LOOKS).profile == mine


@pytest.mark.parametrize("weights", [[], [1.0], [1.0, 0.0], [1.0, 1.0, 1.0]])
def test_weights_are_one_for_each_and_positive(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="2 readings"):
        joined([read("a", [0]), read("b", [1])], weights)


def test_a_phrase_that_begins_with_another_is_told_apart() -> None:
    assert LOOKS.named("Prefers outlines drawn.") == {1: 1}
    assert LOOKS.named("Avoids outlines.") == {1: 0}
