"""Sets of four pairs that a person is read from, and which of a person's pairs each may stand for.

A set that shows a caption or a picture of the pair it is asked about gives the answer away. So each
query knows its sets: those that share neither with it, `sets_P`, bit e for set e. A pair may be in
one set and still be a query of others.

To leave every query a set, a seen person's captions are dealt into two halves and each set is drawn
within one of them. Who has too little for that, five to seven pairs as a rule, is read from sets
that each leave some captions out: as many of their pairs as possible have a set to be asked under.

Dimension letters: P pairs, E sets of 4 pairs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from training.data.preferences import CHOICES_PER_PROFILE, Preferences

IntArray = NDArray[np.int64]
MOST_SETS = 62
"""Bits of a number that is never negative."""

Captions = Mapping[int, Sequence[int]]
"""A person's pairs by the family of their caption, each family's in the person's order."""


def all_of(sets: int) -> int:
    """The bits of that many sets; of the one stand-in where there are none."""
    return (1 << max(1, sets)) - 1


def sets_apart(captions: Captions, place: Mapping[int, int], sets: int) -> list[list[int]]:
    """Up to `sets` sets that leave every caption another set, or at least some captions one.

    place: of each pair in the person's order, which is that within sets, too.
    """
    by_size = sorted(captions.values(), key=len, reverse=True)
    halves: tuple[list[int], list[int]] = ([], [])
    for pairs in by_size:
        min(halves, key=len).extend(pairs)
    smaller, larger = sorted(halves, key=len)
    if len(smaller) < CHOICES_PER_PROFILE:
        return _leaving_out(captions, place, sets)
    dealt = zip_longest(fours(smaller, place), fours(larger, place))
    return [four for both in dealt for four in both if four is not None][:sets]


def _leaving_out(captions: Captions, place: Mapping[int, int], sets: int) -> list[list[int]]:
    """Up to `sets` sets, of which each leaves out captions that all before it show.

    A set takes the captions that another set leaves out first, then the largest. The first takes as
    few captions as make four pairs, and all sets that those give.
    """
    found: list[list[int]] = []
    shown_by_all = set(captions)
    while shown_by_all and len(found) < sets:
        by_use = sorted(captions, key=lambda one: (one in shown_by_all, -len(captions[one])))
        taken: set[int] = set()
        for caption in by_use:
            if _pairs(captions, taken) < CHOICES_PER_PROFILE and shown_by_all - taken - {caption}:
                taken.add(caption)
        if _pairs(captions, taken) < CHOICES_PER_PROFILE:
            break
        found += fours([pair for caption in taken for pair in captions[caption]], place)
        shown_by_all &= taken
    return found[:sets]


def _pairs(captions: Captions, some: Collection[int]) -> int:
    return sum(len(captions[caption]) for caption in some)


def fours(pairs: Sequence[int], place: Mapping[int, int]) -> list[list[int]]:
    """The pairs in the person's order, four by four; up to three are left over."""
    ordered = sorted(pairs, key=place.__getitem__)
    end = len(ordered) // CHOICES_PER_PROFILE * CHOICES_PER_PROFILE
    return [ordered[at : at + CHOICES_PER_PROFILE] for at in range(0, end, CHOICES_PER_PROFILE)]


def sets_that_share_nothing(
    preferences: Preferences,
    family_K: IntArray,
    support: Sequence[Sequence[int]],
    query_P: IntArray,
) -> IntArray:
    """sets_P of these queries."""
    shown: defaultdict[tuple[str, int], int] = defaultdict(int)
    for index, four in enumerate(support):
        for pair in four:
            shown["caption", int(family_K[preferences.caption_P[pair]])] |= 1 << index
            for picture in preferences.picture_P2[pair].tolist():
                shown["picture", picture] |= 1 << index
    known = all_of(len(support))
    asked = zip(
        family_K[preferences.caption_P[query_P]].tolist(),
        preferences.picture_P2[query_P].tolist(),
        strict=True,
    )
    return np.array(
        [
            known
            & ~(
                shown.get(("caption", family), 0)
                | shown.get(("picture", first), 0)
                | shown.get(("picture", second), 0)
            )
            for family, (first, second) in asked
        ],
        dtype=np.int64,
    )
