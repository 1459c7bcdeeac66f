"""Splits by shares hold apart what they must, whatever the data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.assignment import Assignment, assign
from training.data.preferences import CHOICES_PER_PROFILE, Preferences, ReadCounts
from training.data.splits import SPLITS, SplitRule, fraction, is_unseen, side_of

RULE = SplitRule(
    held_out="shares",
    unseen_user_share=0.3,
    validation_caption_share=0.15,
    held_out_caption_share=0.25,
    salt="t",
)
Pair = tuple[int, int]
"""A person's number and a caption's."""


def preferences_of(pairs: list[Pair], order: np.ndarray | None = None) -> Preferences:
    """Pair n shows the pictures na and nb; people and captions have sparse numbers, as in data."""
    order = np.arange(len(pairs)) if order is None else order
    own = np.array(pairs, dtype=np.int64).reshape(-1, 2)[order]
    users, user_P = np.unique(own[:, 0], return_inverse=True)
    captions, caption_P = np.unique(own[:, 1], return_inverse=True)
    names = [f"{n}{side}" for n in range(len(pairs)) for side in "ab"]
    return Preferences(
        user_P=user_P,
        caption_P=caption_P,
        picture_P2=np.stack([2 * order, 2 * order + 1], axis=1),
        preferred_P=np.zeros(len(pairs), dtype=np.int64),
        row_P=np.arange(len(pairs)),
        users=[f"user {n}" for n in users],
        captions=[f"caption {n}" for n in captions],
        pictures=names,
        counts=ReadCounts(*([0] * 13)),
    )


def named(preferences: Preferences, assignment: Assignment) -> dict[str, tuple[object, object]]:
    """For each person their support sets and queries, by the pictures' names."""
    name = [preferences.pictures[first] for first, _ in preferences.picture_P2.tolist()]
    return {
        preferences.users[person.user]: (
            [[name[pair] for pair in four] for four in person.support_E4.tolist()],
            {
                name[pair]: SPLITS[split]
                for pair, split in zip(person.query_P.tolist(), person.split_P, strict=True)
            },
        )
        for person in assignment.people
    }


def trainable() -> list[Pair]:
    """Ten pairs of one seen person under one training caption, so that something is left."""
    user = next(n for n in range(1000, 2000) if not is_unseen(f"user {n}", RULE))
    caption = next(n for n in range(1000, 2000) if side_of(f"caption {n}", RULE) == "train")
    return [(user, caption)] * 10


PAIRS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 30)), max_size=150).map(
    lambda pairs: trainable() + pairs
)
SETS = st.integers(0, 4)


@settings(max_examples=60, deadline=None)
@given(pairs=PAIRS, sets=SETS)
def test_the_splits_hold_people_and_captions_apart(pairs: list[Pair], sets: int) -> None:
    preferences = preferences_of(pairs)
    people_in: dict[str, set[str]] = {split: set() for split in SPLITS}
    captions_in: dict[str, set[str]] = {split: set() for split in SPLITS}
    support_captions: set[str] = set()
    seen_support_captions: set[str] = set()
    for person in assign(preferences, RULE, sets).people:
        user = preferences.users[person.user]
        for pair, code in zip(person.query_P.tolist(), person.split_P.tolist(), strict=True):
            assert preferences.user_P[pair] == person.user
            caption = preferences.captions[preferences.caption_P[pair]]
            side, held_out = (
                side_of(caption, RULE),
                "unseen_users" if person.unseen else "seen_users",
            )
            assert person.unseen == is_unseen(user, RULE)
            assert SPLITS[code] == (held_out if side == "held_out" else side)
            people_in[SPLITS[code]].add(user)
            captions_in[SPLITS[code]].add(caption)
        shown = {preferences.captions[preferences.caption_P[p]] for p in person.support_E4.ravel()}
        support_captions |= shown
        if not person.unseen:
            seen_support_captions |= shown
    assert people_in["unseen_users"].isdisjoint(people_in["train"] | people_in["validation"])
    assert people_in["seen_users"] | people_in["validation"] <= people_in["train"]
    held_out = captions_in["seen_users"] | captions_in["unseen_users"]
    assert held_out.isdisjoint(captions_in["train"] | captions_in["validation"])
    assert captions_in["train"].isdisjoint(captions_in["validation"])
    assert all(side_of(caption, RULE) == "train" for caption in seen_support_captions)


@settings(max_examples=60, deadline=None)
@given(pairs=PAIRS, sets=SETS)
def test_a_support_pair_is_used_once_and_never_asked(pairs: list[Pair], sets: int) -> None:
    preferences = preferences_of(pairs)
    for person in assign(preferences, RULE, sets).people:
        support = person.support_E4.ravel().tolist()
        query = person.query_P.tolist()
        assert person.support_E4.shape[1:] == (CHOICES_PER_PROFILE,)
        assert len(person.support_E4) <= sets
        assert (len(person.support_E4) > 0) == (sets > 0)
        assert len({*support, *query}) == len(support) + len(query)
        assert all(preferences.user_P[pair] == person.user for pair in support)
        assert query


@settings(max_examples=60, deadline=None)
@given(pairs=PAIRS, sets=SETS, seed=st.integers(0, 1000))
def test_the_order_of_the_rows_changes_nothing(pairs: list[Pair], sets: int, seed: int) -> None:
    whole = preferences_of(pairs)
    order = np.random.default_rng(seed).permutation(len(pairs))
    mixed = preferences_of(pairs, order)
    once, again = assign(whole, RULE, sets), assign(mixed, RULE, sets)
    assert named(whole, once) == named(mixed, again)
    assert list(named(whole, once)) == list(named(mixed, again))
    assert once.counts == again.counts


@settings(max_examples=40, deadline=None)
@given(pairs=PAIRS, others=st.lists(st.tuples(st.integers(50, 60), st.integers(0, 30))))
def test_other_peoples_rows_change_nobodys_split(pairs: list[Pair], others: list[Pair]) -> None:
    alone, together = preferences_of(pairs), preferences_of(pairs + others)
    before = named(alone, assign(alone, RULE, 2))
    after = named(together, assign(together, RULE, 2))
    assert {user: after[user] for user in before} == before


@settings(max_examples=60, deadline=None)
@given(pairs=PAIRS, sets=SETS)
def test_every_pair_is_accounted_for(pairs: list[Pair], sets: int) -> None:
    counts = assign(preferences_of(pairs), RULE, sets).counts
    assert len(pairs) == (
        sum(counts[f"{split}_pairs"] for split in SPLITS)
        + counts["support_pairs"]
        + counts.get("pairs_of_unseen_users", 0)
        + counts.get("pairs_of_those", 0)
    )


def test_shares_are_what_they_say() -> None:
    people = [is_unseen(f"user {n}", RULE) for n in range(4000)]
    sides = [side_of(f"caption {n}", RULE) for n in range(4000)]
    assert np.mean(people) == pytest.approx(0.3, abs=0.03)
    assert sides.count("validation") / 4000 == pytest.approx(0.15, abs=0.03)
    assert sides.count("held_out") / 4000 == pytest.approx(0.25, abs=0.03)


def test_the_hash_is_this_one_for_ever() -> None:
    """Splits of another version, machine or process must be the same: numbers written down."""
    assert fraction("user", "10000000", "ppd") == 0.8245175034025101
    assert fraction("caption", "a boat at sea", "ppd") == 0.6739161805127606


def test_a_caption_in_other_letters_is_the_same_caption() -> None:
    for n in range(50):
        assert side_of(f"  A Boat\tnumber {n} ", RULE) == side_of(f"a boat number {n}", RULE)


def test_another_salt_makes_other_splits() -> None:
    other = RULE.model_copy(update={"salt": "u"})
    names = [f"user {n}" for n in range(200)]
    assert [is_unseen(n, RULE) for n in names] != [is_unseen(n, other) for n in names]


def test_a_seen_person_gives_at_most_half_of_their_training_pairs_for_support() -> None:
    counts = assign(preferences_of(trainable() * 3), RULE, 20).counts
    assert (counts["support_sets"], counts["train_pairs"]) == (3, 18)
    few = assign(preferences_of(trainable()[:6]), RULE, 20).counts
    assert (few["support_sets"], few["train_pairs"]) == (1, 2)


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="shares"):
        SplitRule(validation_caption_share=0.5, held_out_caption_share=0.5)
    with pytest.raises(ValueError, match="support_sets"):
        assign(preferences_of(trainable()), RULE, -1)
    with pytest.raises(ValueError, match="left to train on"):
        assign(preferences_of(trainable()[:4]), RULE, 1)
