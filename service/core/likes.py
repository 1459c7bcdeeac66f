"""Pictures that a person likes without a pair: which picture of the pool each is set against.

That is one of its nearest caption, since captions name content and a pair is of one content: by the
words of its own caption where it has one that shares a word with the pool, else by what the model
sees of it. Which picture of that caption is drawn, by the liked picture's id.

Legend: N pictures, F features.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.core.pool import Pair, PairImage, Pool

Features = NDArray[np.float32]
"""What the model sees of pictures, N x F of length 1."""
_WORD = re.compile(r"\w+")
_SMALL = frozenset(["a", "an", "and", "at", "by", "from", "in", "of", "on", "the", "to", "with"])


@dataclass(frozen=True)
class Against:
    """A picture of a pair of the pool, and by what its caption was found."""

    pair_id: str
    image: int
    by: Literal["caption", "picture"]

    @property
    def row(self) -> dict[str, Any]:
        """As it is kept with the answer."""
        return dict(vars(self))


def by_caption(pool: Pool, caption: str, image_id: str) -> Against | None:
    """A picture of the caption that shares most of its words with this one; None if none does."""
    words = _words(caption)
    shares = {
        own: len(words & theirs) / len(words | theirs)
        for own in _captions(pool)
        if (theirs := _words(own)) and words & theirs
    }
    if not shares:
        return None
    return _drawn(pool, max(shares, key=lambda own: (shares[own], own)), image_id, "caption")


def by_picture(pool: Pool, pool_NF: Features, seen_F: Features, image_id: str) -> Against:
    """A picture of the caption whose pictures are, on average, most like this one.

    `pool_NF` as `pictures_of` names them.
    """
    captions: dict[str, list[int]] = {}
    for place, (pair, _) in enumerate(pictures_of(pool)):
        captions.setdefault(pair.caption, []).append(place)
    likeness = {}
    for caption, places in captions.items():
        mean_F = pool_NF[places].mean(axis=0)
        likeness[caption] = float(seen_F @ mean_F / np.linalg.norm(mean_F))
    nearest = max(likeness, key=lambda caption: (likeness[caption], caption))
    return _drawn(pool, nearest, image_id, "picture")


def pictures_of(pool: Pool) -> list[tuple[Pair, PairImage]]:
    """All pictures of the pool, in the order of their features."""
    return [(pair, image) for pair in pool.pairs for image in pair.images]


def picture_against(pool: Pool, row: Mapping[str, Any]) -> tuple[str, PairImage] | None:
    """The caption and the picture that `Against.row` names; None when the pool has lost them."""
    pair = pool.get(str(row["pair_id"]))
    return None if pair is None else (pair.caption, pair.images[int(row["image"])])


def _drawn(pool: Pool, caption: str, image_id: str, by: Literal["caption", "picture"]) -> Against:
    of_caption = [
        Against(pair.pair_id, image, by)
        for pair in pool.pairs
        if pair.caption == caption
        for image in (0, 1)
    ]
    drawn = int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big")
    return of_caption[drawn % len(of_caption)]


def _captions(pool: Pool) -> Sequence[str]:
    return list(dict.fromkeys(pair.caption for pair in pool.pairs))


def _words(caption: str) -> frozenset[str]:
    return frozenset(_WORD.findall(caption.lower())) - _SMALL
