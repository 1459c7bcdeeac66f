"""The people with most pairs, read from sets of any four of them (paper, B.4), for Figure 2.

Nobody is trained on or asked anything, so no pair is held out.

Legend: P pairs, E sets of 4 pairs.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
from numpy.typing import NDArray

from training.data.assignment import Assignment
from training.data.preferences import CHOICES_PER_PROFILE, Preferences
from training.data.splits import PersonPairs, fraction

IntArray = NDArray[np.int64]


def sets_of_most_pairs(
    preferences: Preferences, people: int | None, sets: int, salt: str
) -> Assignment:
    """Up to `sets` sets of the `people` with most pairs (None: all), those with most first.

    No pair is in two sets; a person's pairs come in an order by hash of what they saw. Raises
    ValueError for no sets.
    """
    if sets < 1:
        raise ValueError(f"support_sets is {sets}: nobody would be read")
    names = preferences.pictures
    place_P = [
        fraction("pair", "\0".join(sorted((names[first], names[second]))), salt)
        for first, second in preferences.picture_P2.tolist()
    ]
    own: dict[int, list[int]] = {}
    for pair in np.argsort(place_P).tolist():
        own.setdefault(int(preferences.user_P[pair]), []).append(pair)
    most = sorted(own, key=lambda user: (-len(own[user]), preferences.users[user]))
    read = [_read_from(user, own[user], sets) for user in islice(most, people)]
    support_sets = sum(len(person.support_E4) for person in read)
    return Assignment(
        read,
        {
            "people": len(read),
            "support_sets": support_sets,
            "support_pairs": CHOICES_PER_PROFILE * support_sets,
            "fewest_sets": min(len(person.support_E4) for person in read),
        },
    )


def _read_from(user: int, pairs: list[int], sets: int) -> PersonPairs:
    size = CHOICES_PER_PROFILE * min(sets, len(pairs) // CHOICES_PER_PROFILE)
    support_E4 = np.array(pairs[:size], dtype=np.int64).reshape(-1, CHOICES_PER_PROFILE)
    none: IntArray = np.empty(0, dtype=np.int64)
    return PersonPairs(user, False, support_E4, query_P=none, split_P=none, sets_P=none)
