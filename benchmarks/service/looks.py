"""How often intervals leave the truth out when one looks after every person, and how many people it
takes to tell two adapters apart.

    python -m benchmarks.service.looks

People are simulated: each has a chance of their own to prefer the picture in their taste, of a beta
law, and an observation is the part won of their first choices.

Legend: S sequences of people, L looks, M means in question.
"""

import argparse
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.core.proof.confidence import ALPHA, log_wealth

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

LOG_LIMIT = math.log(1 / ALPHA)
SPREAD = 4.0
"""Of the beta law: the chances of people of a mean of .7 have a standard deviation of .2."""
FIRST_LOOK = 10
"""So many people are there when a normal interval is first looked at."""
LOOK_EVERY = 25
"""Two adapters are compared after so many further people: computing it takes longer."""
_EQUAL_M = np.linspace(0.4, 0.96, 57)
"""Means that two adapters may have in common."""


def people(seed: int, mean: float, sequences: int, looks: int, each: int) -> Floats:
    """Observations, S x L: wins of each person's first `each` choices."""
    rng = np.random.default_rng(seed)
    chance_SL = rng.beta(SPREAD * mean, SPREAD * (1 - mean), (sequences, looks))
    wins_SL: Floats = rng.binomial(each, chance_SL).astype(np.float64)
    return wins_SL


def counts(wins_L: Floats, each: int) -> Floats:
    """How many had each number of wins after each person of a sequence, J x L."""
    of_each_JL: Floats = (np.arange(each + 1)[:, None] == wins_L).cumsum(1).astype(np.float64)
    return of_each_JL


def leaves_out(wins_SL: Floats, mean: float, each: int) -> Flags:
    """In which sequences the confidence sequence leaves the true mean out at some look."""
    at = np.array([mean])
    richest_S = [log_wealth(counts(wins_L, each), at).max() for wins_L in wins_SL]
    return np.array(richest_S) >= LOG_LIMIT


def normal_leaves_out(wins_SL: Floats, mean: float, each: int) -> Flags:
    """The same of mean +- 1.96 standard errors."""
    seen_SL = wins_SL / each
    n_L = np.arange(1, seen_SL.shape[1] + 1)
    mean_SL = seen_SL.cumsum(1) / n_L
    variance_SL = np.maximum((seen_SL**2).cumsum(1) / n_L - mean_SL**2, 1e-12)
    outside = np.abs(mean_SL - mean) > 1.96 * np.sqrt(variance_SL / n_L)
    left_S: Flags = outside[:, FIRST_LOOK:].any(1)
    return left_S


def told_apart_after(first_L: Floats, trial_L: Floats, is_trial_L: Flags, each: int) -> int | None:
    """After how many people the two means are known to differ; None for more than there are.

    first_L, trial_L: what each person to come would have been in either arm.
    """
    first_JL = counts(np.where(is_trial_L, -1, first_L), each)
    trial_JL = counts(np.where(is_trial_L, trial_L, -1), each)
    looks = slice(LOOK_EVERY - 1, None, LOOK_EVERY)
    first_ML, trial_ML = (log_wealth(one[:, looks], _EQUAL_M) for one in (first_JL, trial_JL))
    apart = np.flatnonzero((first_ML + trial_ML).min(0) >= LOG_LIMIT)
    return int(LOOK_EVERY * (apart[0] + 1)) if len(apart) else None


def main(argv: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sequences", type=int, default=400)
    parser.add_argument("--looks", type=int, default=500)
    args = parser.parse_args(argv)
    print("of each  mean  left out at some look: here  normal intervals")
    for each in (1, 4):
        for mean in (0.5, 0.7, 0.9):
            wins_SL = people(1, mean, args.sequences, args.looks, each)
            here = leaves_out(wins_SL, mean, each).mean()
            normal = normal_leaves_out(wins_SL, mean, each).mean()
            print(f"{each:7}  {mean:.2f}  {here:27.3f}  {normal:16.3f}")
    print("of each  share  means     known to differ after people: median, of sequences")
    for each in (1, 4):
        for share in (0.2, 0.5):
            for means in ((0.7, 0.8), (0.6, 0.8)):
                print(_told_apart(each, share, means, args.sequences // 10, 2 * args.looks))


def _told_apart(
    each: int, share: float, means: tuple[float, float], sequences: int, looks: int
) -> str:
    first_SL, trial_SL = (
        people(seed, mean, sequences, looks, each) for seed, mean in enumerate(means)
    )
    is_trial_SL = np.random.default_rng(5).random((sequences, looks)) < share
    after = [
        told_apart_after(first_L, trial_L, is_trial_L, each)
        for first_L, trial_L, is_trial_L in zip(first_SL, trial_SL, is_trial_SL, strict=True)
    ]
    found = [people for people in after if people is not None]
    if len(found) <= len(after) / 2:
        median = f"more than {looks}"
    else:
        median = f"{np.median([looks + 1 if one is None else one for one in after]):.0f}"
    known = f"{len(found)} of {len(after)} within {looks}"
    return f"{each:7}  {share:.1f}    {means[0]}, {means[1]}  {median:>14}, {known}"


if __name__ == "__main__":
    main()
