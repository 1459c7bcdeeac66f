"""Every person's support sets and queries, and what became of all pairs. START HERE for splits.

Dimension letters: P pairs, E support sets of 4 pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.held_out_people import people_by_count
from training.data.held_out_shares import people_by_share
from training.data.preferences import CHOICES_PER_PROFILE, Preferences
from training.data.splits import SPLITS, PersonPairs, SplitRule, fraction
from training.data.support_sets import MOST_SETS, sets_that_share_nothing

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Assignment:
    """The people that can be read and asked, in an order by hash, and what became of all pairs.

    Counts: pairs and people of each split; support_sets and the support_pairs in them, of which
    pairs_only_read are no queries; draws of a set for a query that could be made, and of them
    draws_that_share a caption or a picture; people_of_few_pairs, under eight, used as far as those
    go; and left out: pairs_of_unseen_users (neither read nor asked), pairs_without_set (each
    set of their person shows their caption or one of their pictures), people_without_support and
    people_without_query with pairs_of_those.
    """

    people: list[PersonPairs]
    counts: dict[str, int]


def assign(
    preferences: Preferences,
    rule: SplitRule,
    support_sets: int,
    validating: Collection[str] | None = None,
) -> Assignment:
    """Up to `support_sets` sets of every person, and their queries.

    validating: captions that validate; None takes the rule's share of them. With 0 sets, nobody is
    read and every pair may be a query. A seen person without a training pair was not seen: they are
    left out, like an unseen one without a query. Raises ValueError for a number of sets below 0 or
    above 62, when no pair is left to train on, and when fewer people can be tested than the rule
    asks for.
    """
    if not 0 <= support_sets <= MOST_SETS:
        raise ValueError(f"support_sets is {support_sets}, expected 0 to {MOST_SETS}")
    counted = ["support_sets", "support_pairs", "pairs_only_read", "draws", "draws_that_share"]
    counted += ["people_of_few_pairs"]
    counts: Counter[str] = Counter(dict.fromkeys(counted, 0))
    counts.update({f"{split}_{what}": 0 for split in SPLITS for what in ("pairs", "people")})
    order_P = _order(preferences, rule.salt)
    own = np.split(order_P, np.flatnonzero(np.diff(preferences.user_P[order_P])) + 1)
    made = people_by_count if rule.held_out == "people" else people_by_share
    people = made(preferences, own, rule, support_sets, counts, validating)
    people.sort(key=lambda each: fraction("place", preferences.users[each.user], rule.salt))
    for person in people:
        support_P = person.support_E4.ravel()
        counts["support_sets"] += len(person.support_E4)
        counts["support_pairs"] += len(support_P)
        counts["pairs_only_read"] += len(np.setdiff1d(support_P, person.query_P))
        used = len(np.union1d(support_P, person.query_P))
        counts["people_of_few_pairs"] += used < 2 * CHOICES_PER_PROFILE
        draws, sharing = _draws(preferences, person)
        counts["draws"] += draws
        counts["draws_that_share"] += sharing
        for code, pairs in Counter(person.split_P.tolist()).items():
            counts[f"{SPLITS[code]}_pairs"] += pairs
            counts[f"{SPLITS[code]}_people"] += 1
    if not counts["train_pairs"]:
        raise ValueError(f"no pair is left to train on: {dict(counts)}")
    return Assignment(people, dict(counts))


def _draws(preferences: Preferences, person: PersonPairs) -> tuple[int, int]:
    """How many sets the person's queries may be asked under, and how many give one away."""
    if not len(person.support_E4):
        return 0, 0
    as_typed_K = np.arange(len(preferences.captions))
    support = person.support_E4.tolist()
    apart_P = sets_that_share_nothing(preferences, as_typed_K, support, person.query_P)
    sharing_P = person.sets_P & ~apart_P
    return int(np.bitwise_count(person.sets_P).sum()), int(np.bitwise_count(sharing_P).sum())


def _order(preferences: Preferences, salt: str) -> IntArray:
    """All pairs, person by person, each person's in an order by hash of what they saw."""
    names = preferences.pictures
    place_P = [
        fraction("pair", "\0".join(sorted((names[first], names[second]))), salt)
        for first, second in preferences.picture_P2.tolist()
    ]
    return np.lexsort((np.array(place_P), preferences.user_P)).astype(np.int64)
