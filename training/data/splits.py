"""The paper's four splits (5.2): how much is held out, and what falls where.

Train; validation; seen people with held-out captions; unseen people with held-out captions. Which
pairs of a person are in which is decided in `assignment.py`, by one of two rules:

- "people" (`held_out_people.py`): so many people of either test, and of each of them a caption of
  their own, as in the paper;
- "shares" (`held_out_shares.py`): people and captions each by a hash of their own name alone.

All choices are made by hashes of names, so that the order of the rows changes nothing.

Dimension letters: P pairs, E support sets of 4 pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Set
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from training.jobs.configuration import Configuration

IntArray = NDArray[np.int64]
Split = Literal["train", "validation", "seen_users", "unseen_users"]
SPLITS: tuple[Split, ...] = get_args(Split)
CaptionSide = Literal["train", "validation", "held_out"]


HeldOut = Literal["people", "shares"]


class SplitRule(Configuration):
    """How much is held out.

    The paper tests 192 unseen and 277 seen people, 4 + 1 examples each, and validates on
    Pick-a-Pic's 500 validation captions of 58,000.
    """

    held_out: HeldOut = "people"
    """Whether the tests are so many people with captions of their own, as in the paper, or a share
    of all people and captions, which says nothing of how many people are left."""
    unseen_people: NonNegativeInt = 192
    """People whose pairs are never trained on."""
    seen_people: NonNegativeInt = 277
    """People who are trained on, and tested with captions that nobody is trained on."""
    test_captions: PositiveInt = 1
    """Captions that are held out of each person of either test, at most."""
    near_caption: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Captions of a person that have this share of their words in common are one caption, and so
    is one that continues another: see near_captions.py."""
    unseen_user_share: float = 192 / 4341
    """Share of people whose pairs are never trained on."""
    validation_caption_share: float = 500 / 58_000
    """Share of captions that validate."""
    held_out_caption_share: float = 0.1
    """Share of captions that the two tests hold out."""
    salt: str = "ppd"
    """Another one makes other splits of the same sizes."""

    def unread(self) -> Set[str]:
        """What the other rule reads."""
        if self.held_out == "people":
            return {"unseen_user_share", "held_out_caption_share"}
        return {"unseen_people", "seen_people", "test_captions", "near_caption"}

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
    """One person: `user` and the pairs count into Preferences; split_P counts into SPLITS.

    sets_P: which sets a query may be asked under, bit e for set e; bit 0 alone where there is no
    set.
    """

    user: int
    unseen: bool
    support_E4: IntArray
    query_P: IntArray
    split_P: IntArray
    sets_P: IntArray


def fraction(kind: str, name: str, salt: str) -> float:
    """A number in [0, 1) that follows from its arguments alone, evenly spread."""
    digest = hashlib.blake2b(f"{salt}\0{kind}\0{name}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def is_unseen(user: str, rule: SplitRule) -> bool:
    """Whether a person is never trained on."""
    return fraction("user", user, rule.salt) < rule.unseen_user_share


def same(caption: str) -> str:
    """A caption without what makes no other one of it: letter case and white space."""
    return " ".join(caption.casefold().split())


def side_of(caption: str, rule: SplitRule) -> CaptionSide:
    """Where a caption falls by the shares."""
    number = fraction("caption", same(caption), rule.salt)
    if number < rule.held_out_caption_share:
        return "held_out"
    if number < rule.held_out_caption_share + rule.validation_caption_share:
        return "validation"
    return "train"
