"""Which pairs to ask next, and on which side each picture is shown.

L suffix: looks.
"""

import hashlib
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from service.core.pool import Pair

CHOICES_PER_EMBEDDING = 4
"""The paper's N: an embedding is read from this many decided pairs."""

_CANDIDATES = 24
_PRIOR_PRECISION = 0.5


def next_pairs(
    pairs: Sequence[Pair], answered: Collection[str], person: str, count: int
) -> list[Pair]:
    """The `count` unanswered pairs that together tell most about all looks.

    Greedy D-optimal design: each pick has the largest d' A^-1 d, with d the difference in looks
    between the two pictures and A the information of what was answered and picked before. Every
    person (any stable string) draws an own subset of candidates, so that people differ a little.
    The picks of one person stay the same while they are being answered one by one.
    """
    order = np.random.default_rng(_seed(person)).permutation(len(pairs))
    mine = [pairs[i] for i in order[: max(_CANDIDATES, len(answered) + 2 * count)]]
    known = [pair for pair in pairs if pair.pair_id in answered]
    left = [pair for pair in mine if pair.pair_id not in answered]
    dimensions = len(pairs[0].look_delta_L)
    information_LL = _PRIOR_PRECISION * np.eye(dimensions)
    for pair in known:
        information_LL += _information(pair)
    picked: list[Pair] = []
    while left and len(picked) < count:
        inverse_LL = np.linalg.inv(information_LL)
        captions = {pair.caption for pair in (*known, *picked)}
        best = max(left, key=lambda pair: (pair.caption not in captions, _gain(pair, inverse_LL)))
        left.remove(best)
        picked.append(best)
        information_LL += _information(best)
    return picked


def sides(person: str, pair_id: str) -> tuple[int, int]:
    """Which picture of a pair this person sees first: (0, 1) or (1, 0), always the same."""
    swapped = _seed(f"{person}\n{pair_id}") & 1
    return (1, 0) if swapped else (0, 1)


def needed(decided: int) -> int:
    """How many more decided choices an embedding needs."""
    return max(0, CHOICES_PER_EMBEDDING - decided)


def _gain(pair: Pair, inverse_LL: NDArray[np.floating]) -> float:
    delta_L = np.asarray(pair.look_delta_L)
    return float(delta_L @ inverse_LL @ delta_L)


def _information(pair: Pair) -> NDArray[np.float64]:
    delta_L = np.asarray(pair.look_delta_L)
    return np.outer(delta_L, delta_L)


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
