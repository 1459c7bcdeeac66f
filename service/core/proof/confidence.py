"""Where a mean over people lies, and the difference of two: by bets, good at every look.

A person is one observation in [0, 1]. Against each mean m in question somebody bets on every person
to come: they split what they own between two assets, of which one person makes x / m and
(1 - x) / (1 - m). If m is the true mean, both are expected to keep their value, whatever was seen
before, so nobody grows rich: that their wealth ever reaches 1 / alpha has at most the probability
alpha (Ville's inequality). The means against which nobody grew so rich are a confidence sequence:
the true one is among them at all looks together, with probability 1 - alpha, so it may be looked at
after every person and acted upon at any time (Waudby-Smith and Ramdas 2024, "Estimating means of
bounded random variables by betting", section 4). How to split is not known beforehand: wealth is
the mean over B splits that are kept for ever, at the nodes of the arcsine law, as in Cover's
universal portfolio (Orabona and Jun 2024). What somebody owns then depends on how often each
observation occurred, not on the order.

Two arms: bets against a pair of means multiply, as each person is bet on in one arm. The pairs
against which the product stays below 1 / alpha are a confidence sequence of both; their
differences are one of the difference.

Legend: J values of an observation, B splits, M edges of cells in [0, 1].
"""

import math

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Interval = tuple[float, float]

ALPHA = 0.05
"""At so many of a hundred services the truth is outside at one look or another, at most."""

_SPLITS = 512
_SPLIT_B = np.sin((2 * np.arange(_SPLITS) + 1) * np.pi / (4 * _SPLITS)) ** 2
_CELLS = 1000
_EDGE_M = np.linspace(0, 1, _CELLS + 1)
_NEVER = 1e-9
"""In the place of the means 0 and 1, against which one observation may win everything."""


def mean_of(counts_J: FloatArray) -> float:
    """The mean observation; values lie evenly from 0 to 1."""
    return float(counts_J @ _values(counts_J) / counts_J.sum())


def interval_of(counts_J: FloatArray) -> Interval:
    """The confidence sequence of the mean after these people, rounded outward to thousandths."""
    inside = np.flatnonzero(_lowest(counts_J) < math.log(1 / ALPHA))
    return int(inside[0]) / _CELLS, int(inside[-1] + 1) / _CELLS


def interval_of_difference(first_J: FloatArray, second_J: FloatArray) -> Interval:
    """The same of the second mean less the first, rounded outward to two thousandths."""
    first_M, second_M = _lowest(first_J), _lowest(second_J)
    first, second = np.nonzero(first_M[:, None] + second_M < math.log(1 / ALPHA))
    lowest, highest = int((second - first).min()) - 1, int((second - first).max()) + 1
    return lowest / _CELLS, highest / _CELLS


def log_wealth(counts_J: FloatArray, mean_M: FloatArray) -> FloatArray:
    """Log of what those own who bet against these means, in (0, 1), and began with 1.

    counts_J: how many people had each value; further axes behind J, as looks, stay.
    """
    log_MB_ = 0.0
    for value, count in zip(_values(counts_J), counts_J, strict=True):
        up_M, down_M = value / mean_M, (1 - value) / (1 - mean_M)
        factor_MB = np.outer(up_M, _SPLIT_B) + np.outer(down_M, 1 - _SPLIT_B)
        log_MB_ = log_MB_ + np.multiply.outer(np.log(factor_MB), count)
    assert isinstance(log_MB_, np.ndarray)
    most = log_MB_.max(1, keepdims=True)
    wealth: FloatArray = most[:, 0] + np.log(np.exp(log_MB_ - most).mean(1))
    return wealth


def _lowest(counts_J: FloatArray) -> FloatArray:
    """The least log wealth in each cell between two edges: it is convex in the mean, so it is at
    an edge, or where the mean of what was seen lies, against which no bet gains."""
    edge_M = log_wealth(counts_J, np.clip(_EDGE_M, _NEVER, 1 - _NEVER))
    cell_M: FloatArray = np.minimum(edge_M[:-1], edge_M[1:])
    if counts_J.sum() > 0:
        seen = min(int(mean_of(counts_J) * _CELLS), _CELLS - 1)
        cell_M[seen] = min(cell_M[seen], 0.0)
    return cell_M


def _values(counts_J: FloatArray) -> FloatArray:
    return np.linspace(0, 1, len(counts_J))
