"""The tests are so many people, and of each of them a caption that nobody is trained on (5.2).

    =============  ====================  ===================  ======================
    person         training caption      validation caption   own caption, held out
    =============  ====================  ===================  ======================
    seen           support and train     validation           seen_users
    unseen         support               support              unseen_users
    =============  ====================  ===================  ======================

A caption is its family throughout (`near_captions.py`): edits of one are on one side. Held out are
families that a single person typed, so that nobody else's training pairs are lost, and a person is
tested only if enough is left of them: a set of four, and of a seen person pairs to train on. No set
shows a caption or a picture of a query that is asked under it (`support_sets.py`).

Who is tested, and with which caption, is decided by hashes; it depends on whose rows there are, not
on their order.

Dimension letters: P pairs, K captions, F families.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from training.data.near_captions import families, normal
from training.data.preferences import CHOICES_PER_PROFILE, Preferences
from training.data.splits import SPLITS, PersonPairs, Split, SplitRule, fraction
from training.data.support_sets import all_of, fours, sets_apart, sets_that_share_nothing

IntArray = NDArray[np.int64]


def people_by_count(
    preferences: Preferences,
    own: Sequence[IntArray],
    rule: SplitRule,
    support_sets: int,
    counts: Counter[str],
    validating: Collection[str] | None = None,
) -> list[PersonPairs]:
    """Everybody who can be read and asked; own: each person's pairs, in their order.

    Raises ValueError when fewer people can be tested than the rule asks for.
    """
    divider = _Divider(preferences, own, rule, support_sets, validating)
    by_hash = sorted(
        range(len(own)), key=lambda place: fraction("user", divider.name_of(own[place]), rule.salt)
    )
    made: dict[int, PersonPairs] = {}
    for option, wanted in (
        ("unseen_people", rule.unseen_people),
        ("seen_people", rule.seen_people),
    ):
        unseen = option == "unseen_people"
        others = [place for place in by_hash if place not in made]
        tested = ((place, divider.tested(own[place], unseen)) for place in others)
        found = dict(islice(((place, one) for place, one in tested if one is not None), wanted))
        if len(found) < wanted:
            raise ValueError(
                f"{option} is {wanted}: of {len(others)} people {len(found)} have a caption of "
                "their own that can be held out with enough left of them; held_out 'shares' holds "
                "out captions that several people typed"
            )
        made |= found
    for place, own_P in enumerate(own):
        person = made.get(place) or divider.divided(own_P, unseen=False)
        if isinstance(person, str):
            counts[person] += 1
            counts["pairs_of_those"] += len(own_P)
            continue
        made[place] = person
        used = np.union1d(person.support_E4.ravel(), person.query_P)
        left_out = "pairs_of_unseen_users" if person.unseen else "pairs_without_set"
        counts[left_out] += len(own_P) - len(used)
    return [made[place] for place in sorted(made)]


class _Divider:
    """Divides a person's pairs among support and queries."""

    def __init__(
        self,
        preferences: Preferences,
        own: Sequence[IntArray],
        rule: SplitRule,
        support_sets: int,
        validating: Collection[str] | None,
    ) -> None:
        self.preferences, self.rule, self.support_sets = preferences, rule, support_sets
        typed_by = [np.unique(preferences.caption_P[own_P]) for own_P in own]
        found = families(preferences.captions, typed_by, rule.near_caption)
        self.family_K, self.key_F = found.family_K, found.key_F
        typists_F = np.bincount(
            np.concatenate([np.unique(self.family_K[own_K]) for own_K in typed_by]),
            minlength=len(self.key_F),
        )
        self.validates_F = self._validates(validating)
        self.may_be_held_out_F = (typists_F == 1) & ~self.validates_F

    def _validates(self, validating: Collection[str] | None) -> NDArray[np.bool_]:
        if validating is None:
            share, salt = self.rule.validation_caption_share, self.rule.salt
            return np.array([fraction("caption", key, salt) < share for key in self.key_F])
        known = {normal(caption) for caption in validating}
        known_K = [normal(caption) in known for caption in self.preferences.captions]
        return np.isin(np.arange(len(self.key_F)), self.family_K[known_K])

    def name_of(self, own_P: IntArray) -> str:
        """The person's user id."""
        return self.preferences.users[int(self.preferences.user_P[own_P[0]])]

    def tested(self, own_P: IntArray, unseen: bool) -> PersonPairs | None:
        """The person with up to `test_captions` captions held out; None where none can be."""
        own_F = np.unique(self.family_K[self.preferences.caption_P[own_P]])
        by_hash = sorted(
            own_F[self.may_be_held_out_F[own_F]].tolist(),
            key=lambda family: fraction("held out", self.key_F[family], self.rule.salt),
        )
        held_out: list[int] = []
        best: PersonPairs | None = None
        for family in by_hash:
            person = self.divided(own_P, unseen=unseen, held_out=[*held_out, family])
            if isinstance(person, PersonPairs) and self._asks(person, [*held_out, family]):
                held_out.append(family)
                best = person
            if len(held_out) == self.rule.test_captions:
                break
        return best

    def _asks(self, person: PersonPairs, held_out: Sequence[int]) -> bool:
        asked_F = self.family_K[self.preferences.caption_P[person.query_P]]
        return set(held_out) <= set(asked_F.tolist())

    def divided(
        self, own_P: IntArray, *, unseen: bool, held_out: Collection[int] = ()
    ) -> PersonPairs | str:
        """The person's sets and queries; or what they lack, as `Assignment` counts it."""
        place = {pair: number for number, pair in enumerate(own_P.tolist())}
        train: dict[int, list[int]] = {}
        validation: list[int] = []
        test: list[int] = []
        for pair in place:
            family = int(self.family_K[self.preferences.caption_P[pair]])
            if family in held_out:
                test.append(pair)
            elif self.validates_F[family] and not unseen:
                validation.append(pair)
            else:
                train.setdefault(family, []).append(pair)
        support = self._support(train, place, unseen)
        if self.support_sets and not support:
            return "people_without_support"
        trained = (
            []
            if unseen
            else sorted((p for own in train.values() for p in own), key=place.__getitem__)
        )
        query_P = np.array([*trained, *validation, *test], dtype=np.int64)
        tested_as: Split = "unseen_users" if unseen else "seen_users"
        splits: list[Split] = ["train", "validation", tested_as]
        split_P = np.repeat(
            [SPLITS.index(split) for split in splits], [len(trained), len(validation), len(test)]
        )
        sets_P = sets_that_share_nothing(self.preferences, self.family_K, support, query_P)
        # Training draws among the sets of a query; who is measured is known from any of them.
        heard_P = np.where(split_P == 0, sets_P != 0, sets_P == all_of(len(support)))
        query_P, split_P, sets_P = query_P[heard_P], split_P[heard_P], sets_P[heard_P]
        needed = split_P == SPLITS.index("unseen_users" if unseen else "train")
        if not (needed.any() or (not self.support_sets and len(query_P))):
            return "people_without_query"
        return PersonPairs(
            user=int(self.preferences.user_P[own_P[0]]),
            unseen=unseen,
            support_E4=np.array(support, dtype=np.int64).reshape(-1, CHOICES_PER_PROFILE),
            query_P=query_P,
            split_P=split_P.astype(np.int64),
            sets_P=sets_P,
        )

    def _support(
        self, train: Mapping[int, Sequence[int]], place: Mapping[int, int], unseen: bool
    ) -> list[list[int]]:
        if not self.support_sets:
            return []
        if unseen:
            everything = [pair for pairs in train.values() for pair in pairs]
            return fours(everything, place)[: self.support_sets]
        return sets_apart(train, place, self.support_sets)
