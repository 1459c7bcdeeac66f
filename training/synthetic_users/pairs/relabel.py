"""Pairs relabelled by rewards (paper, 5.1), pure: scores in, who prefers which out.

"We relabel ranking pairs based on the above reward functions"; "each user has an equal chance of
appearing". A pair whose two scores a user can hardly tell apart is a tie and trains nobody.

Legend: A rewards (synthetic users), P pairs, 2 the pair's pictures, R rows that are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

Assignment = Literal["one", "all"]
"""Each pair answered by one user, drawn evenly (the paper); or by every user."""


@dataclass(frozen=True)
class Answers:
    """R decided pairs, user by user: whose they are, which pair, and which picture (0 or 1) is
    preferred. tie_below_A: the least difference of each reward that decides; ties_A: pairs that
    each user was asked about and left undecided."""

    user_R: IntArray
    pair_R: IntArray
    preferred_R: IntArray
    tie_below_A: FloatArray
    ties_A: IntArray

    def __len__(self) -> int:
        return len(self.user_R)


def relabel(
    scores_AP2: FloatArray,
    *,
    tie_margin: float,
    assignment: Assignment,
    rng: np.random.Generator,
) -> Answers:
    """Each user prefers the picture with the higher reward.

    tie_margin is in standard deviations of each reward's own differences within pairs, since
    rewards have no common unit: a difference below it, or of exactly zero, is a tie. Raises
    ValueError for scores that are not finite, for a negative margin, and when a user is left
    without a pair.
    """
    if not np.isfinite(scores_AP2).all():
        raise ValueError("a score is not finite")
    if not tie_margin >= 0:
        raise ValueError(f"tie_margin is {tie_margin}, expected 0 or more")
    users, pairs, _ = scores_AP2.shape
    gap_AP = scores_AP2[..., 1] - scores_AP2[..., 0]
    tie_below_A = (tie_margin * gap_AP.std(axis=1)).astype(np.float32)
    decided_AP = (np.abs(gap_AP) >= tie_below_A[:, None]) & (gap_AP != 0)
    asked_AP = np.ones((users, pairs), dtype=bool)
    if assignment == "one":
        asked_AP = rng.integers(users, size=pairs) == np.arange(users)[:, None]
    user_R, pair_R = np.nonzero(asked_AP & decided_AP)
    missing = sorted(set(range(users)) - set(user_R.tolist()))
    if missing:
        raise ValueError(f"users {missing} are left without a decided pair of {pairs}")
    return Answers(
        user_R=user_R.astype(np.int64),
        pair_R=pair_R.astype(np.int64),
        preferred_R=(gap_AP[user_R, pair_R] > 0).astype(np.int64),
        tie_below_A=tie_below_A,
        ties_A=(asked_AP & ~decided_AP).sum(axis=1).astype(np.int64),
    )
