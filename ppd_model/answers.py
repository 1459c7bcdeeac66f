"""What answers to known pairs say by themselves: the taste, its reading, and how often it pleases.

A person prefers the second picture of a pair with probability sigmoid(taste . pair), `pair` being
the difference of its pictures in coordinates in which tastes are standard normal over people. What
a reading of such answers comes to on average, and how often pictures made with it please, was
fitted on people by `training.calibration`, and belongs to one reader and one adapter. Needs no
torch.

Legend: B alternatives, N answers, P pairs, M of them, K coordinates, D embedding, S draws.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_BOUND_ROUNDS = 6
_DRAWS = 256
MORE = 4
"""Answers that are imagined beside those given."""


@dataclass(frozen=True)
class Belief:
    """A normal distribution of one person's taste; several alternatives may lead the shapes."""

    mean_K: FloatArray
    covariance_KK: FloatArray

    @property
    def clearness(self) -> FloatArray:
        """How far the mean taste is from none, against how uncertain it is in its own direction.

        A step along the mean taste changes a person's liking by a normal number; this is its mean
        over its standard deviation, where one of the population's own is added for what pictures do
        beside that.
        """
        length = np.linalg.norm(self.mean_K, axis=-1)
        unit_K = self.mean_K / np.maximum(length, 1e-12)[..., None]
        variance = np.einsum("...k,...kl,...l->...", unit_K, self.covariance_KK, unit_K)
        clear: FloatArray = length / np.sqrt(1 + variance)
        return clear


def belief(
    delta_NK: FloatArray,
    answer_N: NDArray[Any],
    mean_K: FloatArray | None = None,
    covariance_KK: FloatArray | None = None,
) -> Belief:
    """The taste after answers, by Jaakkola and Jordan's bound.

    answer_N: how far the second picture was preferred, 0 to 1, one half a tie; B x N of as many
    alternatives. mean_K and covariance_KK: before the answers; standard normal by default.
    """
    dimensions = delta_NK.shape[-1]
    covariance_KK = np.eye(dimensions) if covariance_KK is None else covariance_KK
    precision_KK = np.linalg.inv(covariance_KK)
    pull_K = (np.asarray(answer_N) - 0.5) @ delta_NK
    if mean_K is not None:
        pull_K = pull_K + precision_KK @ mean_K
    after_K = np.zeros_like(pull_K) if mean_K is None else np.broadcast_to(mean_K, pull_K.shape)
    after_KK = np.broadcast_to(covariance_KK, (*pull_K.shape, dimensions))
    for _ in range(_BOUND_ROUNDS):
        spread_N = ((delta_NK @ after_KK) * delta_NK).sum(-1)
        bound_N = np.sqrt(spread_N + (after_K @ delta_NK.T) ** 2 + 1e-12)
        weight_N = np.tanh(bound_N / 2) / (2 * bound_N)
        weighted_KN = np.swapaxes(delta_NK * weight_N[..., None], -1, -2)
        after_KK = np.linalg.inv(precision_KK + weighted_KN @ delta_NK)
        after_K = (after_KK @ pull_K[..., None])[..., 0]
    return Belief(after_K, after_KK)


def telling(now: Belief, delta_PK: FloatArray, count: int = MORE) -> FloatArray:
    """Of the pairs that may be asked, the `count` that likely tell most, M x K.

    Greedy, near to what a quiz asks that follows the answers: the gain is the variance of a pair's
    margin times that of its answer at the mean taste, and each narrows the belief as much.
    """
    chance_P = (1 + np.tanh(delta_PK @ now.mean_K / 2)) / 2
    weight_P = chance_P * (1 - chance_P)
    covariance_KK, picked = now.covariance_KK, list[int]()
    for _ in range(min(count, len(delta_PK))):
        gain_P = weight_P * ((delta_PK @ covariance_KK) * delta_PK).sum(1)
        gain_P[picked] = -1
        best = int(gain_P.argmax())
        picked.append(best)
        moved_K = covariance_KK @ delta_PK[best]
        covariance_KK = covariance_KK - np.outer(moved_K, moved_K) * (
            weight_P[best] / (1 + gain_P[best])
        )
    return delta_PK[picked]


def after_more(
    now: Belief, delta_NK: FloatArray, answer_N: NDArray[Any], more_MK: FloatArray
) -> tuple[FloatArray, Belief]:
    """How likely each way of answering M more pairs is, B in all, and what is believed after it."""
    ways_BM = np.array(list(product((0, 1), repeat=len(more_MK))), dtype=np.float64)
    rng = np.random.default_rng(0)
    taste_SK = rng.multivariate_normal(now.mean_K, now.covariance_KK, _DRAWS, method="cholesky")
    chance_SM = (1 + np.tanh(taste_SK @ more_MK.T / 2)) / 2
    each_SBM = np.where(ways_BM == 1, chance_SM[:, None], 1 - chance_SM[:, None])
    likely_B = each_SBM.prod(-1).mean(0)
    answers_BN = np.concatenate(
        [np.broadcast_to(answer_N, (len(ways_BM), len(answer_N))), ways_BM], axis=1
    )
    return likely_B, belief(np.concatenate([delta_NK, more_MK]), answers_BN)


@dataclass(frozen=True)
class AnswerModel:
    """What `training.calibration` found of answers to one pool's pairs.

    reading_KD and offset_D: the mean reading of people whose mean taste this is, of that encoder.
    pairs_sha256: of the file that has the pairs' coordinates.
    wins_at_none and wins_by: log odds that a picture with a taste pleases more than without, at
    clearness 0 and for each unit, with that adapter; None where that could not be foretold.
    foretells_more: whether what four more answers bring could be foretold, too.
    most_answers: of how many that was measured.
    """

    encoder_version: str
    adapter_version: str
    pairs_sha256: str
    most_answers: int
    reading_KD: list[list[float]]
    offset_D: list[float]
    wins_at_none: float | None
    wins_by: float | None
    foretells_more: bool

    def expected_reading(self, mean_K: FloatArray) -> FloatArray:
        """The embedding, D, that readings of such answers have on average."""
        emb_D: FloatArray = mean_K @ np.array(self.reading_KD) + np.array(self.offset_D)
        return emb_D

    def wins(self, clearness: FloatArray) -> FloatArray | None:
        """The chance that a picture made with the taste pleases more than without it."""
        if self.wins_at_none is None or self.wins_by is None:
            return None
        chance: FloatArray = (1 + np.tanh((self.wins_at_none + self.wins_by * clearness) / 2)) / 2
        return chance

    def wins_after_more(
        self, now: Belief, delta_NK: FloatArray, answer_N: NDArray[Any], left_PK: FloatArray
    ) -> float | None:
        """The same after four more answers, to be expected now; left_PK may still be asked."""
        if not self.foretells_more:
            return None
        more_MK = telling(now, left_PK)
        likely_B, then = after_more(now, delta_NK, answer_N, more_MK)
        wins_B = self.wins(then.clearness)
        return None if wins_B is None else float(likely_B @ wins_B)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)) + "\n")

    @classmethod
    def load(cls, path: Path) -> AnswerModel:
        """Raises ValueError that names the file where it is not of this shape."""
        try:
            found = cls(**json.loads(path.read_text(encoding="utf-8")))
            if np.array(found.reading_KD).shape[1] != len(found.offset_D):
                raise ValueError("its readings have several widths")
        except (TypeError, ValueError, IndexError) as error:
            raise ValueError(f"{path}: {error}") from error
        return found
