"""Confidence sequences: against numbers derived by hand, and under looks after every person."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.service.looks import (
    LOG_LIMIT,
    leaves_out,
    normal_leaves_out,
    people,
)
from benchmarks.service.looks import counts as counts_at_looks
from service.core.proof.confidence import (
    ALPHA,
    interval_of,
    interval_of_difference,
    log_wealth,
    mean_of,
)

Floats = NDArray[np.float64]
EACH = 4
"""Choices that make an observation in the simulations: values 0, 1/4, ... 1."""


def counts(*people: float) -> Floats:
    return np.array(people, dtype=np.float64)


def wealth(counts_J: Floats, mean: float) -> float:
    return float(np.exp(log_wealth(counts_J, np.array([mean])))[0])


# By hand. The split b is of the arcsine law: E b = 1/2, E b^2 = 3/8, E b(1-b) = 1/8, E b^3 = 5/16.


@pytest.mark.parametrize("mean", [0.05, 0.5, 0.9])
def test_wealth_by_hand(mean: float) -> None:
    lost, won = 1 / (1 - mean), 1 / mean
    assert wealth(counts(0, 0), mean) == pytest.approx(1)
    assert wealth(counts(0, 1), mean) == pytest.approx(won / 2)
    assert wealth(counts(1, 0), mean) == pytest.approx(lost / 2)
    assert wealth(counts(0, 2), mean) == pytest.approx(won**2 * 3 / 8)
    assert wealth(counts(1, 1), mean) == pytest.approx(won * lost / 8)
    assert wealth(counts(0, 3), mean) == pytest.approx(won**3 * 5 / 16)
    assert wealth(counts(0, 1, 0), mean) == pytest.approx((won + lost) / 4)


def test_intervals_by_hand() -> None:
    assert interval_of(counts(0, 0)) == (0.0, 1.0)
    within = {"abs": 0.0021}  # they are rounded outward
    assert interval_of(counts(0, 1)) == pytest.approx((1 / 40, 1), **within)  # 1 / (2 m) is 20
    assert interval_of(counts(1, 0)) == pytest.approx((0, 39 / 40), **within)
    assert interval_of(counts(0, 2)) == pytest.approx((math.sqrt(3 / 160), 1), **within)
    assert interval_of_difference(counts(1, 0), counts(0, 0)) == pytest.approx(
        (-39 / 40, 1), **within
    )


def test_a_fair_bet_keeps_its_value_whatever_the_law() -> None:
    """The mean of the wealth after one more person is the wealth before, at the true mean."""
    before = counts(3, 1, 4, 1, 5)
    law = np.array([0.1, 0.3, 0.2, 0.15, 0.25])
    mean = float(law @ np.linspace(0, 1, 5))
    after = sum(p * wealth(before + person, mean) for p, person in zip(law, np.eye(5), strict=True))
    assert after == pytest.approx(wealth(before, mean))


def test_the_difference_is_that_of_the_pairs_that_are_left() -> None:
    first, second = counts(9, 3, 4), counts(2, 5, 13)
    low, high = interval_of_difference(first, second)
    mean_M = np.linspace(0.0005, 0.9995, 1000)
    left = log_wealth(first, mean_M)[:, None] + log_wealth(second, mean_M) < LOG_LIMIT
    at_first, at_second = np.nonzero(left)
    differences = mean_M[at_second] - mean_M[at_first]
    assert low <= differences.min() < low + 0.005
    assert high - 0.005 < differences.max() <= high
    assert low < mean_of(second) - mean_of(first) < high
    assert interval_of_difference(second, first) == pytest.approx((-high, -low), abs=0.0021)


def test_very_many_people_leave_a_thousandth() -> None:
    low, high = interval_of(counts(2e8, 8e8))
    assert low <= 0.8 <= high
    assert high - low <= 0.0021
    assert (low, high) == (round(low, 3), round(high, 3))


# Looks after every person


@pytest.mark.parametrize("mean", [0.5, 0.85])
def test_the_truth_is_inside_at_all_looks_together(mean: float) -> None:
    wins_SL = people(1, mean, sequences=300, looks=300, each=EACH)
    assert leaves_out(wins_SL, mean, EACH).mean() <= ALPHA
    assert normal_leaves_out(wins_SL, mean, EACH).mean() > 4 * ALPHA  # what is forbidden here


def test_of_two_equal_adapters_none_is_called_better_however_often_one_looks() -> None:
    """A fifth of the people is served the trial; both win as often."""
    mean, sequences, looks = 0.7, 200, 300
    rng = np.random.default_rng(3)
    wrong = peeked = 0
    for wins_L in people(2, mean, sequences, looks, EACH):
        is_trial_L = rng.random(looks) < 0.2
        of_first_JL = counts_at_looks(np.where(is_trial_L, -1, wins_L), EACH)
        of_trial_JL = counts_at_looks(np.where(is_trial_L, wins_L, -1), EACH)
        at = np.array([mean])
        wrong += (log_wealth(of_first_JL, at) + log_wealth(of_trial_JL, at)).max() >= LOG_LIMIT
        peeked += peeked_t(wins_L[~is_trial_L], wins_L[is_trial_L], is_trial_L)
    assert wrong / sequences <= ALPHA
    assert peeked / sequences > 3 * ALPHA


def peeked_t(one_L: Floats, two_L: Floats, is_trial_L: NDArray[np.bool_]) -> bool:
    """Whether a t-test calls one better at some look, from ten people in each arm on."""
    for look in range(len(is_trial_L)):
        two = int(is_trial_L[: look + 1].sum())
        one = look + 1 - two
        if min(one, two) < 10:
            continue
        a, b = one_L[:one], two_L[:two]
        error = math.sqrt(a.var(ddof=1) / one + b.var(ddof=1) / two)
        if error > 0 and abs(a.mean() - b.mean()) > 1.96 * error:
            return True
    return False


def test_a_better_trial_is_found() -> None:
    found = 0
    for seed in range(20):
        first_L, trial_L = (people(seed, mean, 1, 150, EACH)[0] for mean in (0.6, 0.85))
        first, trial = (counts_at_looks(wins_L, EACH)[:, -1] for wins_L in (first_L, trial_L))
        low, _ = interval_of_difference(first, trial)
        found += low > 0
    assert found >= 18
