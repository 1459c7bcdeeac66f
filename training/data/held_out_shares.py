"""The tests are a share of people and a share of captions, each by a hash of its own name alone.

So a person's split depends on nobody else's rows, and two data sets hold out the same captions.

    =============  ====================  ===================  ==================
    person         training caption      validation caption   held-out caption
    =============  ====================  ===================  ==================
    seen           support, then train   validation           seen_users
    unseen         support               support              unseen_users
    =============  ====================  ===================  ==================

A person's first pairs make the support sets and are never queries; a set may show the caption of a
query. An unseen person with fewer than four pairs under other captions is read from held-out ones,
which are then no queries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.preferences import CHOICES_PER_PROFILE, Preferences
from training.data.splits import (
    SPLITS,
    CaptionSide,
    PersonPairs,
    Split,
    SplitRule,
    is_unseen,
    same,
    side_of,
)
from training.data.support_sets import all_of

IntArray = NDArray[np.int64]


def people_by_share(
    preferences: Preferences,
    own: Sequence[IntArray],
    rule: SplitRule,
    support_sets: int,
    counts: Counter[str],
    validating: Collection[str] | None = None,
) -> list[PersonPairs]:
    """Everybody who can be read and asked; own: each person's pairs, in their order.

    A seen person gives at most half of their training pairs for sets, but one set at least.
    """
    if validating is None:
        side_K = [side_of(caption, rule) for caption in preferences.captions]
    else:
        others = rule.model_copy(update={"validation_caption_share": 0.0})
        known = {same(caption) for caption in validating}
        side_K = [
            "validation" if same(caption) in known else side_of(caption, others)
            for caption in preferences.captions
        ]
    people = [_person(preferences, own_P, side_K, rule, support_sets, counts) for own_P in own]
    return [person for person in people if person is not None]


def _person(
    preferences: Preferences,
    own_P: IntArray,
    side_K: list[CaptionSide],
    rule: SplitRule,
    support_sets: int,
    counts: Counter[str],
) -> PersonPairs | None:
    user = int(preferences.user_P[own_P[0]])
    unseen = is_unseen(preferences.users[user], rule)
    of_side: dict[CaptionSide, list[int]] = {"train": [], "validation": [], "held_out": []}
    for pair in own_P.tolist():
        of_side[side_K[preferences.caption_P[pair]]].append(pair)
    train, validation, held_out = of_side["train"], of_side["validation"], of_side["held_out"]
    if unseen:
        support, unused, held_out = _unseen_support(train + validation, held_out, support_sets)
        queries: list[tuple[Split, Sequence[int]]] = [("unseen_users", held_out)]
        enough = bool(held_out)
    else:
        support, train = _seen_support(train, support_sets)
        unused = []
        queries = [("train", train), ("validation", validation), ("seen_users", held_out)]
        enough = bool(train)
    if len(support) < min(support_sets, 1) * CHOICES_PER_PROFILE:
        counts["people_without_support"] += 1
        counts["pairs_of_those"] += len(own_P)
        return None
    if not enough:
        counts["people_without_query"] += 1
        counts["pairs_of_those"] += len(own_P)
        return None
    counts["pairs_of_unseen_users"] += len(unused)
    support_E4 = np.array(support, dtype=np.int64).reshape(-1, CHOICES_PER_PROFILE)
    query_P = np.array([pair for _, pairs in queries for pair in pairs], dtype=np.int64)
    return PersonPairs(
        user=user,
        unseen=unseen,
        support_E4=support_E4,
        query_P=query_P,
        split_P=np.array(
            [SPLITS.index(split) for split, pairs in queries for _ in pairs], dtype=np.int64
        ),
        sets_P=np.full(len(query_P), all_of(len(support_E4)), dtype=np.int64),
    )


def _seen_support(train: list[int], support_sets: int) -> tuple[list[int], list[int]]:
    """The pairs of the support sets, and the training queries that are left."""
    sets = min(support_sets, max(1, len(train) // (2 * CHOICES_PER_PROFILE)))
    size = sets * CHOICES_PER_PROFILE
    return train[:size], train[size:]


def _unseen_support(
    asked: list[int], held_out: list[int], support_sets: int
) -> tuple[list[int], list[int], list[int]]:
    """The pairs of the support sets, those of no use, and the queries that are left."""
    if not support_sets:
        return [], asked, held_out
    sets = min(support_sets, max(1, len(asked) // CHOICES_PER_PROFILE))
    size = sets * CHOICES_PER_PROFILE
    lacking = max(0, size - len(asked))
    return asked[:size] + held_out[:lacking], asked[size:], held_out[lacking:]
