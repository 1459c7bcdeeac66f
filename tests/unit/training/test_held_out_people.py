"""Tests of so many people, as the paper has them, on people in number like Pick-a-Pic's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.simulated_pickapic import simulated_pickapic
from training.data.assignment import Assignment, assign
from training.data.near_captions import families
from training.data.preferences import Preferences
from training.data.splits import SPLITS, SplitRule
from training.data.support_sets import all_of

FEW = SplitRule(unseen_people=6, seen_people=9, validation_caption_share=0.05)


@pytest.fixture(scope="module")
def some() -> Preferences:
    """150 people."""
    return simulated_pickapic(people=150, seed=3, pairs_per_prompt=4)


def captions_in(
    preferences: Preferences, assignment: Assignment, *splits: str
) -> set[tuple[int, str]]:
    """Who is asked about which captions in these splits."""
    codes = [SPLITS.index(split) for split in SPLITS if split in splits]
    return {
        (person.user, preferences.captions[preferences.caption_P[pair]])
        for person in assignment.people
        for pair in person.query_P[np.isin(person.split_P, codes)]
    }


def test_192_unseen_and_277_seen_people_of_pick_a_pic_are_tested_with_captions_of_their_own() -> (
    None
):
    preferences = simulated_pickapic()
    assignment = assign(preferences, SplitRule(), 5)
    counts = assignment.counts
    assert (counts["unseen_users_people"], counts["seen_users_people"]) == (192, 277)
    trained = captions_in(preferences, assignment, "train", "validation")
    tested = captions_in(preferences, assignment, "seen_users", "unseen_users")
    assert {caption for _, caption in trained}.isdisjoint(caption for _, caption in tested)
    unseen = {person.user for person in assignment.people if person.unseen}
    assert unseen.isdisjoint(user for user, _ in trained)
    assert {user for user, _ in captions_in(preferences, assignment, "seen_users")} <= {
        user for user, _ in captions_in(preferences, assignment, "train")
    }
    assert all(len(person.support_E4) for person in assignment.people)
    assert counts["train_pairs"] > 0.9 * len(preferences)
    assert counts["draws_that_share"] == 0


def shares_something(preferences: Preferences, near_caption: float, sets: int) -> list[int]:
    """For each of the splits: queries asked under a set with their caption or picture."""
    typed_by = [
        np.unique(preferences.caption_P[preferences.user_P == user])
        for user in range(len(preferences.users))
    ]
    family_K = families(preferences.captions, typed_by, near_caption).family_K
    found = [0] * len(SPLITS)
    for person in assign(preferences, FEW, sets).people:
        for pair, code, bits in zip(person.query_P, person.split_P, person.sets_P, strict=True):
            for place, four in enumerate(person.support_E4):
                same = (
                    family_K[preferences.caption_P[four]] == family_K[preferences.caption_P[pair]]
                )
                seen = np.isin(preferences.picture_P2[four], preferences.picture_P2[pair])
                found[code] += bool(bits >> place & 1) and (same.any() or seen.any())
    return found


@pytest.mark.parametrize("sets", [1, 3, 20])
def test_no_set_shows_the_caption_or_a_picture_of_its_query(some: Preferences, sets: int) -> None:
    assert shares_something(some, FEW.near_caption, sets) == [0] * len(SPLITS)


def test_a_picture_that_two_captions_share_separates_set_and_query(some: Preferences) -> None:
    # As where somebody types another caption and goes on with the picture on the screen.
    pictures = some.picture_P2.copy()
    pictures[1:, 0] = np.where(
        some.user_P[1:] == some.user_P[:-1], pictures[:-1, 1], pictures[1:, 0]
    )
    assert shares_something(replace(some, picture_P2=pictures), FEW.near_caption, 5) == [0] * 4


def test_the_other_rule_shares_and_says_so(some: Preferences) -> None:
    ours = assign(some, FEW, 3).counts
    theirs = assign(some, SplitRule(held_out="shares"), 3).counts
    assert (ours["draws_that_share"], ours["draws"] > 0) == (0, True)
    assert 0.1 * theirs["draws"] < theirs["draws_that_share"] < theirs["draws"]


def test_edits_of_a_caption_are_on_one_side(some: Preferences) -> None:
    assignment = assign(some, FEW, 3)
    tested = captions_in(some, assignment, "seen_users", "unseen_users")
    trained = captions_in(some, assignment, "train", "validation")
    edits = {(user, caption) for user, caption in tested | trained if ", " in caption}
    assert edits & tested
    for user, caption in edits:
        before = (user, caption.rpartition(", ")[0])
        for side, other in ((tested, trained), (trained, tested)):
            assert not ((user, caption) in side and before in other)


def test_a_person_with_two_captions_is_asked_about_one_and_read_from_the_other() -> None:
    preferences = people_with([["a boat"] * 4 + ["some hills"] * 4])
    (person,) = assign(preferences, SplitRule(unseen_people=0, seen_people=0), 2).people
    assert [sorted(four) for four in person.support_E4.tolist()] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert dict(zip(person.query_P.tolist(), person.sets_P.tolist(), strict=True)) == (
        dict.fromkeys(range(4), 0b10) | dict.fromkeys(range(4, 8), 0b01)
    )


@pytest.mark.parametrize(("pairs", "sets", "asked"), [(5, 4, 4), (5, 5, 5), (6, 4, 6), (7, 4, 7)])
def test_people_of_few_pairs_are_read_from_sets_that_leave_the_query_out(
    pairs: int, sets: int, asked: int
) -> None:
    preferences = people_with([[f"caption {number}" for number in range(pairs)]])
    nothing = SplitRule(unseen_people=0, seen_people=0, validation_caption_share=0)
    assignment = assign(preferences, nothing, sets)
    (person,) = assignment.people
    assert len(person.query_P) == asked
    for query, bits in zip(person.query_P.tolist(), person.sets_P.tolist(), strict=True):
        asked_under = [four for e, four in enumerate(person.support_E4.tolist()) if bits >> e & 1]
        assert asked_under
        assert all(query not in four for four in asked_under)
    assert assignment.counts["people_of_few_pairs"] == 1
    assert assignment.counts["draws_that_share"] == 0


def test_who_has_four_pairs_has_no_set_that_leaves_one_out_and_is_counted() -> None:
    four, many = ["a", "b", "c", "d"], ["a", "b", "c", "d", "e", "f", "g", "h"]
    nothing = SplitRule(unseen_people=0, seen_people=0, validation_caption_share=0)
    counts = assign(people_with([four, many]), nothing, 4).counts
    assert (counts["people_without_support"], counts["pairs_of_those"]) == (1, 4)
    assert counts["people_of_few_pairs"] == 0


def test_who_has_one_caption_cannot_be_read_without_giving_it_away() -> None:
    preferences = people_with([["a boat"] * 9, ["a boat", "hills"] * 4])
    assignment = assign(preferences, SplitRule(unseen_people=0, seen_people=0), 2)
    assert [preferences.users[person.user] for person in assignment.people] == ["1"]
    assert assignment.counts["people_without_support"] == 1
    assert assignment.counts["pairs_of_those"] == 9


def people_with(captions: list[list[str]]) -> Preferences:
    """One pair for each caption of each person, no picture twice."""
    some = simulated_pickapic(people=2, seed=1)
    texts = sorted({caption for own in captions for caption in own})
    count = sum(map(len, captions))
    return replace(
        some,
        user_P=np.repeat(np.arange(len(captions)), [len(own) for own in captions]),
        caption_P=np.array([texts.index(caption) for own in captions for caption in own]),
        picture_P2=np.arange(2 * count).reshape(-1, 2),
        preferred_P=np.zeros(count, dtype=np.int64),
        row_P=np.arange(count),
        users=[str(number) for number in range(len(captions))],
        captions=texts,
        pictures=[f"{number}" for number in range(2 * count)],
    )


@pytest.mark.parametrize("sets", [0, 1, 5])
def test_every_pair_is_accounted_for(some: Preferences, sets: int) -> None:
    counts = assign(some, FEW, sets).counts
    assert len(some) == (
        sum(counts[f"{split}_pairs"] for split in SPLITS)
        + counts["pairs_only_read"]
        + counts.get("pairs_of_unseen_users", 0)
        + counts.get("pairs_without_set", 0)
        + counts.get("pairs_of_those", 0)
    )


def test_the_order_of_the_rows_changes_nothing(some: Preferences) -> None:
    order = np.random.default_rng(1).permutation(len(some))
    mixed = replace(
        some,
        user_P=some.user_P[order],
        caption_P=some.caption_P[order],
        picture_P2=some.picture_P2[order],
        preferred_P=some.preferred_P[order],
    )
    once, again = assign(some, FEW, 4), assign(mixed, FEW, 4)
    assert once.counts == again.counts
    for one, other in zip(once.people, again.people, strict=True):
        assert one.user == other.user
        assert one.support_E4.tolist() == order[other.support_E4].tolist()
        known = dict(zip(order[other.query_P].tolist(), other.sets_P.tolist(), strict=True))
        assert dict(zip(one.query_P.tolist(), one.sets_P.tolist(), strict=True)) == known


def test_two_captions_of_each_tested_person_can_be_held_out(some: Preferences) -> None:
    rule = FEW.model_copy(update={"test_captions": 2, "unseen_people": 2, "seen_people": 2})
    assignment = assign(some, rule, 1)
    families_of: dict[int, set[str]] = {}
    for user, caption in captions_in(some, assignment, "seen_users", "unseen_users"):
        families_of.setdefault(user, set()).add(caption)
    assert len(families_of) == 4
    assert max(map(len, families_of.values())) >= 2


def test_without_tests_and_sets_every_pair_is_trained_on(some: Preferences) -> None:
    nothing = SplitRule(unseen_people=0, seen_people=0, validation_caption_share=0)
    counts = assign(some, nothing, 0).counts
    assert counts["train_pairs"] == len(some)


def test_more_people_than_can_be_tested_are_refused_with_their_number(some: Preferences) -> None:
    with pytest.raises(ValueError, match=r"unseen_people is 500: of \d+ people \d+ have a caption"):
        assign(some, SplitRule(unseen_people=500), 3)


def test_measured_queries_may_be_asked_under_every_set(some: Preferences) -> None:
    for person in assign(some, FEW, 3).people:
        measured = person.split_P != SPLITS.index("train")
        assert (person.sets_P[measured] == all_of(len(person.support_E4))).all()
