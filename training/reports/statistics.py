"""The few statistics that reports give, pure.

Legend: R comparisons, U clusters (people), F embedding features, L looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, over `clusters` independent units and `count` values."""

    mean: float
    low: float
    high: float
    count: int
    clusters: int

    @classmethod
    def of_draws(
        cls, value: float, value_D: FloatArray, count: int, clusters: int | None = None
    ) -> Estimate:
        """With the interval that bootstrap draws of the value give."""
        low, high = np.quantile(value_D, [0.025, 0.975])
        return cls(value, float(low), float(high), count, clusters or count)

    def contains(self, value: float) -> bool:
        return self.low <= value <= self.high

    def to_dict(self) -> dict[str, float | int]:
        return asdict(self)


def as_shares(estimate: Mapping[str, float] | None) -> str:
    """An estimate of `to_dict` as per cent with its interval; a dash where there is none."""
    return "–" if estimate is None else "{mean:.1%} [{low:.1%}, {high:.1%}]".format(**estimate)


def as_number(estimate: Mapping[str, float]) -> str:
    """An estimate of `to_dict` with its interval."""
    return "{mean:.2f} [{low:.2f}, {high:.2f}]".format(**estimate)


def wins(ours_R: FloatArray, theirs_R: FloatArray, same_within: float = 0.0) -> FloatArray:
    """1 where ours scores higher, 0 where lower, one half within `same_within` of each other."""
    gain_R = ours_R - theirs_R
    outcome_R: FloatArray = (np.sign(np.where(np.abs(gain_R) <= same_within, 0, gain_R)) + 1) / 2
    return outcome_R


def clustered_mean(
    value_R: FloatArray, cluster_R: NDArray[np.int64], rng: np.random.Generator, draws: int = 4000
) -> Estimate:
    """Mean with a percentile bootstrap interval that redraws whole clusters.

    Values of one cluster (a person's prompts, say) are not independent; redrawing single values
    would make the interval too narrow. Raises ValueError for fewer than two clusters.
    """
    return clustered_ratio(value_R, np.ones(len(value_R)), cluster_R, rng, draws)


class NothingToDivideByError(ValueError):
    """A mean that is divided by comes to zero in some draw."""


def clustered_ratio(
    above_R: FloatArray,
    below_R: FloatArray,
    cluster_R: NDArray[np.int64],
    rng: np.random.Generator,
    draws: int = 4000,
) -> Estimate:
    """Ratio of two means of the same comparisons, its interval as in `clustered_mean`.

    Raises ValueError for fewer than two clusters, NothingToDivideByError where the second mean
    comes to zero.
    """
    names, member_R = np.unique(cluster_R, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"{len(names)} cluster: an interval needs at least two")
    above_U, below_U = (np.bincount(member_R, weights=value_R) for value_R in (above_R, below_R))
    picks_DU = rng.integers(len(names), size=(draws, len(names)))
    below_D = below_U[picks_DU].sum(1)
    if not (below_D > 0).all():
        raise NothingToDivideByError("the mean that is divided by is too close to zero")
    ratio = float(above_R.sum() / below_R.sum())
    return Estimate.of_draws(ratio, above_U[picks_DU].sum(1) / below_D, len(above_R), len(names))


def crossed_mean(
    value_SR: FloatArray, cluster_R: NDArray[np.int64], rng: np.random.Generator, draws: int = 4000
) -> Estimate:
    """Mean over training seeds and clusters, its interval redrawing both at once.

    Every seed meets every comparison, so that seeds and clusters are crossed; redrawing each by
    itself is the pigeonhole bootstrap (Owen, 2007), which is a little too wide rather than too
    narrow. Raises ValueError for fewer than two seeds or clusters.

    Legend: S training seeds, R comparisons.
    """
    names, member_R = np.unique(cluster_R, return_inverse=True)
    seeds, people = len(value_SR), len(names)
    if min(seeds, people) < 2:
        raise ValueError(f"{seeds} seeds, {people} clusters: an interval needs two of each")
    sum_SU = np.stack([np.bincount(member_R, weights=value_R) for value_R in value_SR])
    count_U = np.bincount(member_R)
    seed_DS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws)
    person_DU = rng.multinomial(people, np.full(people, 1 / people), size=draws)
    mean_D = (seed_DS @ sum_SU * person_DU).sum(1) / (seeds * (person_DU @ count_U))
    return Estimate.of_draws(float(value_SR.mean()), mean_D, value_SR.size, people)


def ridge_probe(
    train_RF: FloatArray, train_RL: FloatArray, test_RF: FloatArray, penalty: float = 1e-2
) -> FloatArray:
    """Linear predictions of the looks a person cares for, from standardised features.

    `penalty` is relative to the number of training rows.
    """
    mean_F, std_F = train_RF.mean(0), train_RF.std(0) + 1e-8
    x_RF = (train_RF - mean_F) / std_F
    offset_L = train_RL.mean(0)
    gram_FF = x_RF.T @ x_RF + penalty * len(x_RF) * np.eye(x_RF.shape[1])
    weight_FL = np.linalg.solve(gram_FF, x_RF.T @ (train_RL - offset_L))
    predicted_RL: FloatArray = (test_RF - mean_F) / std_F @ weight_FL + offset_L
    return predicted_RL


def mean_cosine(a_RL: FloatArray, b_RL: FloatArray) -> float:
    """Mean cosine of corresponding rows; a zero row counts as 0."""
    norms_R = np.linalg.norm(a_RL, axis=1) * np.linalg.norm(b_RL, axis=1)
    return float(np.mean((a_RL * b_RL).sum(1) / np.maximum(norms_R, 1e-12)))
