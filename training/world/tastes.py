"""People of the world: a hidden taste over the eight looks, and choices that follow it.

A taste is a vector over ``LOOKS``; how much a person likes a picture is its inner product with
the picture's standardized looks, times ``CHOICE_SCALE``, and a choice between two pictures of one
caption follows Bradley and Terry (the paper's reward model, sec. 3).

The population has structure, as people do: most tastes lie near a few shared directions (people
who like it *calm*, *vivid*, *graphic*, ...), some care for one or two looks only, some for
anything. Each direction comes with its opposite, so the population's mean taste is zero and
nobody's taste is everybody's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.world.scene import LOOKS

CHOICE_SCALE = 2.0
"""Utility per unit of taste and standard deviation of look: fairly sure of large differences."""

#            bright contr satur warm detail size outline vignette
DIRECTIONS = np.array(
    [
        [+0.8, -0.2, +0.2, +0.1, -0.1, +0.0, -0.5, -0.7],  # airy            | moody
        [+0.1, +0.7, +0.8, +0.0, +0.3, +0.2, +0.2, +0.0],  # vivid           | muted
        [+0.1, +0.0, +0.2, +1.0, +0.0, -0.1, -0.1, +0.3],  # golden          | cool
        [+0.0, +0.3, +0.0, -0.1, +0.8, -0.3, +0.6, -0.1],  # ornate          | plain
        [-0.1, +0.2, -0.2, +0.0, -0.5, +0.9, +0.3, +0.2],  # close and bold  | far and quiet
    ],
    dtype=np.float32,
)
SHARE_STRUCTURED, SHARE_SPARSE = 0.6, 0.25

TasteNL = NDArray[np.float32]
"""N tastes of unit length over the eight looks."""


@dataclass(frozen=True)
class Population:
    """Where tastes come from."""

    structured: float = SHARE_STRUCTURED
    sparse: float = SHARE_SPARSE

    def sample(self, count: int, rng: np.random.Generator) -> TasteNL:
        """``count`` tastes of unit length, mean about zero."""
        kind_N = rng.random(count)
        mixed_NL = rng.normal(0, 1, (count, len(DIRECTIONS))) ** 3 @ DIRECTIONS
        mixed_NL = _unit(mixed_NL) + rng.normal(0, 0.15, (count, len(LOOKS)))
        sparse_NL = _sparse(count, rng)
        anything_NL = rng.normal(0, 1, (count, len(LOOKS)))
        is_mixed_N1 = (kind_N < self.structured)[:, None]
        is_sparse_N1 = (kind_N < self.structured + self.sparse)[:, None]
        tastes_NL = np.where(is_mixed_N1, mixed_NL, np.where(is_sparse_N1, sparse_NL, anything_NL))
        return _unit(tastes_NL)


def single_look(look: int, sign: float) -> NDArray[np.float32]:
    """The taste of a person who cares for one look only."""
    taste_L = np.zeros(len(LOOKS), dtype=np.float32)
    taste_L[look] = sign
    return taste_L


def utility(taste_L: NDArray[np.float32], looks_L: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much pictures of standardized looks are liked; shapes broadcast over leading axes."""
    liked: NDArray[np.float32] = CHOICE_SCALE * (taste_L * looks_L).sum(axis=-1)
    return liked


def choice_probability(
    taste_L: NDArray[np.float32], looks_0_L: NDArray[np.float32], looks_1_L: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Probability that picture 1 is preferred to picture 0 (Bradley-Terry)."""
    margin = utility(taste_L, looks_1_L) - utility(taste_L, looks_0_L)
    probability: NDArray[np.float32] = 1 / (1 + np.exp(-margin))
    return probability


def choose(
    taste_L: NDArray[np.float32],
    looks_0_L: NDArray[np.float32],
    looks_1_L: NDArray[np.float32],
    rng: np.random.Generator,
) -> int:
    """The picture that the person prefers, 0 or 1, drawn from ``choice_probability``."""
    return int(rng.random() < choice_probability(taste_L, looks_0_L, looks_1_L))


def posterior_mean(
    looks_delta_PL: NDArray[np.float32],
    preferred_P: NDArray[np.int64],
    prior_NL: TasteNL,
) -> NDArray[np.float32]:
    """The best estimate of a taste that some choices allow, by weighing samples of the prior.

    ``looks_delta_PL`` holds looks of picture 1 minus picture 0 for each pair, ``preferred_P`` the
    choices (0 or 1).
    """
    weight_N = posterior_weights(looks_delta_PL, preferred_P, prior_NL)
    mean: NDArray[np.float32] = (weight_N @ prior_NL).astype(np.float32)
    return mean


def posterior_weights(
    looks_delta_PL: NDArray[np.float32],
    preferred_P: NDArray[np.int64],
    prior_NL: TasteNL,
) -> NDArray[np.float64]:
    """How probable each sample of the prior is, given some choices; they sum to 1."""
    sign_P = np.where(preferred_P == 1, 1.0, -1.0)
    margin_NP = CHOICE_SCALE * (prior_NL @ looks_delta_PL.T) * sign_P
    log_weight_N = -np.logaddexp(0, -margin_NP).sum(axis=1)
    weight_N = np.exp(log_weight_N - log_weight_N.max())
    share_N: NDArray[np.float64] = weight_N / weight_N.sum()
    return share_N


def _sparse(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    tastes_NL = np.zeros((count, len(LOOKS)))
    rows = np.arange(count)
    tastes_NL[rows, rng.integers(len(LOOKS), size=count)] += rng.choice((-1.0, 1.0), count)
    second = rng.choice((-1.0, 0.0, 1.0), count, p=(0.25, 0.5, 0.25))
    tastes_NL[rows, rng.integers(len(LOOKS), size=count)] += 0.7 * second
    return tastes_NL + rng.normal(0, 0.03, tastes_NL.shape)


def _unit(vectors_NL: NDArray[np.floating]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = (
        vectors_NL / (np.linalg.norm(vectors_NL, axis=1, keepdims=True) + 1e-8)
    ).astype(np.float32)
    return unit
