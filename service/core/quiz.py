"""Which pairs to ask next, and on which side each picture is shown.

A person prefers the second picture of a pair with probability sigmoid(taste . pair), `pair` being
the difference of the two pictures in the pool's coordinates, in which tastes are about standard
normal over people. The next pair is the one whose answer tells most about the taste, given the
answers so far. docs/results/pair_choice.md says what that brings.

Legend: P pairs, N answers, K coordinates, Q quadrature points.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ppd_model.answers import belief
from service.core.pool import Pair

FloatArray = NDArray[np.float64]

CHOICES_PER_EMBEDDING = 4
"""The paper's N: an embedding is read from this many decided pairs."""

NEAR_BEST = 0.9
"""Asked is the first pair, in an order of the person's own, that tells this share of what the best
one would: people differ in what they are asked, and no pair is worn out."""

_NODES_Q, _WEIGHTS_Q = np.polynomial.hermite_e.hermegauss(16)
_WEIGHTS_Q /= _WEIGHTS_Q.sum()


def next_pairs(
    pairs: Sequence[Pair],
    answers: Mapping[str, int | None],
    person: str,
    count: int,
) -> list[Pair]:
    """The `count` pairs to ask now, most informative first; fewer when the pool has no more.

    answers: by pair id, 0 or 1 for the preferred picture and None for no preference, which counts
    as half an answer either way. An answer moves what is asked next; the pairs after the first are
    planned as if those before them were answered as expected. No answered pair comes again, and no
    caption while there are others.
    person: any stable string, which gives the same pairs for the same answers.
    """
    order = np.random.default_rng(_seed(person)).permutation(len(pairs))
    left = [pairs[i] for i in order if pairs[i].pair_id not in answers]
    asked = [pair for pair in pairs if pair.pair_id in answers]
    expected_N = [_as_number(answers[pair.pair_id]) for pair in asked]
    picked: list[Pair] = []
    while left and len(picked) < count:
        now = belief(coordinates(asked, pairs), np.array(expected_N))
        delta_PK = coordinates(left, pairs)
        margin_P = delta_PK @ now.mean_K
        variance_P = ((delta_PK @ now.covariance_KK) * delta_PK).sum(1)
        gain_P = _information(margin_P, np.sqrt(np.maximum(variance_P, 0)))
        captions = {pair.caption for pair in asked}
        fresh_P = np.array([pair.caption not in captions for pair in left])
        if fresh_P.any():
            gain_P = np.where(fresh_P, gain_P, -np.inf)
        best = int(np.argmax(gain_P >= NEAR_BEST * gain_P.max()))
        expected_N.append(float(_chance(margin_P[best])))
        asked.append(left[best])
        picked.append(left.pop(best))
    return picked


def after(
    first: Pair, pairs: Sequence[Pair], answers: Mapping[str, int | None], person: str
) -> list[Pair]:
    """What `next_pairs` may give once `first` is answered, by either picture or by neither."""
    found = {
        pair.pair_id: pair
        for answer in (0, 1, None)
        for pair in next_pairs(pairs, {**answers, first.pair_id: answer}, person, 1)
    }
    return list(found.values())


def sides(person: str, pair_id: str) -> tuple[int, int]:
    """Which picture of a pair this person sees first: (0, 1) or (1, 0), always the same."""
    swapped = _seed(f"{person}\n{pair_id}") & 1
    return (1, 0) if swapped else (0, 1)


def needed(decided: int) -> int:
    """How many more decided choices an embedding needs."""
    return max(0, CHOICES_PER_EMBEDDING - decided)


def _as_number(answer: int | None) -> float:
    return 0.5 if answer is None else float(answer)


def coordinates(some: Sequence[Pair], pool: Sequence[Pair]) -> FloatArray:
    """The pairs' coordinates, P x K, also of no pairs."""
    flat = [value for pair in some for value in pair.look_delta_L]
    return np.array(flat, dtype=np.float64).reshape(len(some), len(pool[0].look_delta_L))


def _information(margin_P: FloatArray, deviation_P: FloatArray) -> FloatArray:
    """What an answer tells about a normal margin, in nats: the answer's entropy, less what of it
    would be left if the margin were known."""
    chance_PQ = _chance(margin_P[:, None] + deviation_P[:, None] * _NODES_Q)
    told_P: FloatArray = _entropy(chance_PQ @ _WEIGHTS_Q) - _entropy(chance_PQ) @ _WEIGHTS_Q
    return told_P


def _chance(margin: FloatArray) -> FloatArray:
    """The logistic function, for margins of any size."""
    chance: FloatArray = (1 + np.tanh(margin / 2)) / 2
    return chance


def _entropy(chance: FloatArray) -> FloatArray:
    inside = np.clip(chance, 1e-12, 1 - 1e-12)
    nats: FloatArray = -inside * np.log(inside) - (1 - inside) * np.log(1 - inside)
    return nats


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
