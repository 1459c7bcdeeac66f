"""Figure 4, pure: weights over rewards, and how each reward follows its weight.

Legend: A rewards, W points of the simplex, K prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from training.reports.statistics import Estimate

FloatArray = NDArray[np.floating[Any]]
DRAWS = 1000


def simplex(rewards: int, parts: int) -> list[tuple[float, ...]]:
    """All weights of `rewards` rewards that are multiples of 1 / parts and add up to 1.

    Raises ValueError for fewer than two rewards or parts: there would be no way between corners.
    """
    if rewards < 2 or parts < 2:
        raise ValueError(f"{rewards} rewards in {parts} parts: expected two or more of both")
    return [
        tuple(count / parts for count in counts)
        for counts in product(range(parts, -1, -1), repeat=rewards)
        if sum(counts) == parts
    ]


def edge(points: Sequence[tuple[float, ...]], first: int, second: int) -> list[int]:
    """The points between two corners, both included, by rising weight of the second."""
    on_it = [
        place
        for place, weights_A in enumerate(points)
        if all(weight == 0 for a, weight in enumerate(weights_A) if a not in (first, second))
    ]
    return sorted(on_it, key=lambda place: points[place][second])


def follow_weights(
    rewards: Sequence[str],
    points: Sequence[tuple[float, ...]],
    scores_WAK: FloatArray,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Spearman's rho of each reward's mean score with its weight, along each edge and over all.

    An edge has two rewards whose weights change, so an edge of three rewards counts with two
    numbers. Intervals redraw prompts.
    """
    count = scores_WAK.shape[2]
    # How often each prompt is drawn, as a share.
    counts_DK = rng.multinomial(count, np.full(count, 1 / count), size=DRAWS) / count
    all_points = list(range(len(points)))
    report: dict[str, Any] = {"edges": {}, "all_points": {}}
    draws: list[FloatArray] = []
    values: list[float] = []
    for first, second in combinations(range(len(rewards)), 2):
        places = edge(points, first, second)
        measured = {}
        for a in (first, second):
            rho, rho_D = _rho(a, places, points, scores_WAK, counts_DK)
            measured[rewards[a]] = Estimate.of_draws(rho, rho_D, count).to_dict()
            values.append(rho)
            draws.append(rho_D)
        report["edges"][f"{rewards[first]}-{rewards[second]}"] = measured
    for a, reward in enumerate(rewards):
        rho, rho_D = _rho(a, all_points, points, scores_WAK, counts_DK)
        report["all_points"][reward] = Estimate.of_draws(rho, rho_D, count).to_dict()
    mean_D = np.mean(draws, axis=0)
    mean = float(np.mean(values))
    report["mean_over_edges"] = Estimate.of_draws(mean, mean_D, count).to_dict()
    return report


def _rho(
    reward: int,
    places: Sequence[int],
    points: Sequence[tuple[float, ...]],
    scores_WAK: FloatArray,
    counts_DK: FloatArray,
) -> tuple[float, FloatArray]:
    weight_W = np.array([points[place][reward] for place in places])
    score_WK = scores_WAK[list(places), reward].astype(np.float64)
    rho_1 = rank_correlation(weight_W, score_WK.mean(1)[None])
    return float(rho_1[0]), rank_correlation(weight_W, counts_DK @ score_WK.T)


def rank_correlation(weight_W: FloatArray, score_DW: FloatArray) -> FloatArray:
    """Spearman's rho of the weights with each row of scores; 0 for a row of equal scores, none of
    which follows its weight."""
    weight_W = rankdata(weight_W) - (len(weight_W) + 1) / 2
    score_DW = rankdata(score_DW, axis=1) - (len(weight_W) + 1) / 2
    norm_D = np.sqrt((weight_W**2).sum() * (score_DW**2).sum(1))
    rho_D: FloatArray = (score_DW @ weight_W) / np.where(norm_D > 0, norm_D, 1)
    return rho_D
