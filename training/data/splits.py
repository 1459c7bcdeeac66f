"""The paper's four splits (5.2), and who is read from which pairs.

Train; validation; seen people with held-out captions; unseen people with held-out captions. A
person and a caption each fall on their side by a hash of their own name alone, so a split depends
neither on the order of the rows nor on what else is in the files. A person's pairs are put in an
order by hash too: the first of them make the support sets, four pairs each, which the VLM reads;
the others are queries. A support pair is never a query.

    =============  ====================  ===================  ==================
    person         training caption      validation caption   held-out caption
    =============  ====================  ===================  ==================
    seen           support, then train   validation           seen_users
    unseen         support               support              unseen_users
    =============  ====================  ===================  ==================

An unseen person with fewer than four pairs under other captions is read from held-out ones, which
are then no queries.

Dimension letters: P pairs, E support sets of 4 pairs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from training.data.preferences import CHOICES_PER_PROFILE, Preferences
from training.jobs.configuration import Configuration

IntArray = NDArray[np.int64]
Split = Literal["train", "validation", "seen_users", "unseen_users"]
SPLITS: tuple[Split, ...] = get_args(Split)
CaptionSide = Literal["train", "validation", "held_out"]


class SplitRule(Configuration):
    """How much is held out.

    The paper holds out 192 of 4,341 people, and validates on Pick-a-Pic's 500 validation captions
    of 58,000; how many captions its two tests hold out it does not say.
    """

    unseen_user_share: float = 192 / 4341
    """Share of people whose pairs are never trained on."""
    validation_caption_share: float = 500 / 58_000
    """Share of captions that validate."""
    held_out_caption_share: float = 0.1
    """Share of captions that the two tests hold out."""
    salt: str = "ppd"
    """Another one makes other splits of the same sizes."""

    def model_post_init(self, _: object) -> None:
        """Raises ValueError for shares that leave nothing to train on."""
        captions = self.validation_caption_share + self.held_out_caption_share
        shares = (
            self.unseen_user_share,
            self.validation_caption_share,
            self.held_out_caption_share,
            captions,
        )
        if not all(0 <= share < 1 for share in shares):
            raise ValueError(f"shares {shares}: each, and both of captions together, in [0, 1)")


@dataclass(frozen=True)
class PersonPairs:
    """One person: `user` and the pairs count into Preferences; split_P counts into SPLITS."""

    user: int
    unseen: bool
    support_E4: IntArray
    query_P: IntArray
    split_P: IntArray


@dataclass(frozen=True)
class Assignment:
    """The people that can be read and asked, in an order by hash, and what became of all pairs.

    Counts: pairs and people of each split; support_pairs and support_sets; and left out:
    pairs_of_unseen_users (neither support nor under a held-out caption), people_without_support
    and people_without_query with pairs_of_those.
    """

    people: list[PersonPairs]
    counts: dict[str, int]


def fraction(kind: str, name: str, salt: str) -> float:
    """A number in [0, 1) that follows from its arguments alone, evenly spread."""
    digest = hashlib.blake2b(f"{salt}\0{kind}\0{name}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def is_unseen(user: str, rule: SplitRule) -> bool:
    """Whether a person is never trained on."""
    return fraction("user", user, rule.salt) < rule.unseen_user_share


def side_of(caption: str, rule: SplitRule) -> CaptionSide:
    """Where a caption falls. Letter case and white space make no other caption."""
    number = fraction("caption", " ".join(caption.casefold().split()), rule.salt)
    if number < rule.held_out_caption_share:
        return "held_out"
    if number < rule.held_out_caption_share + rule.validation_caption_share:
        return "validation"
    return "train"


def assign(preferences: Preferences, rule: SplitRule, support_sets: int) -> Assignment:
    """Support sets and queries of every person.

    A person gets up to `support_sets` sets; a seen one gives at most half of their training pairs
    for them, but one set at least. With 0, nobody is read and every pair may be a query. A seen
    person without a training pair was not seen: they are left out, like an unseen one without a
    query. Raises ValueError for a negative number and when no pair is left to train on.
    """
    if support_sets < 0:
        raise ValueError(f"support_sets is {support_sets}, expected 0 or more")
    counts: Counter[str] = Counter({"support_sets": 0, "support_pairs": 0})
    counts.update({f"{split}_pairs": 0 for split in SPLITS})
    side_K = [side_of(caption, rule) for caption in preferences.captions]
    order_P = _order(preferences, rule.salt)
    bounds = np.flatnonzero(np.diff(preferences.user_P[order_P])) + 1
    people = []
    for own_P in np.split(order_P, bounds):
        person = _person(preferences, own_P, side_K, rule, support_sets, counts)
        if person is not None:
            people.append(person)
    people.sort(key=lambda each: fraction("place", preferences.users[each.user], rule.salt))
    for person in people:
        counts["support_sets"] += len(person.support_E4)
        counts["support_pairs"] += person.support_E4.size
        for code, pairs in Counter(person.split_P.tolist()).items():
            counts[f"{SPLITS[code]}_pairs"] += pairs
            counts[f"{SPLITS[code]}_people"] += 1
    if not counts["train_pairs"]:
        raise ValueError(f"no pair is left to train on: {dict(counts)}")
    return Assignment(people, dict(counts))


def _order(preferences: Preferences, salt: str) -> IntArray:
    """All pairs, person by person, each person's in an order by hash of what they saw."""
    names = preferences.pictures
    place_P = [
        fraction("pair", "\0".join(sorted((names[first], names[second]))), salt)
        for first, second in preferences.picture_P2.tolist()
    ]
    return np.lexsort((np.array(place_P), preferences.user_P)).astype(np.int64)


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
    return PersonPairs(
        user=user,
        unseen=unseen,
        support_E4=np.array(support, dtype=np.int64).reshape(-1, CHOICES_PER_PROFILE),
        query_P=np.array([pair for _, pairs in queries for pair in pairs], dtype=np.int64),
        split_P=np.array(
            [SPLITS.index(split) for split, pairs in queries for _ in pairs], dtype=np.int64
        ),
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
