"""The statistics against cases whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from training.reports.statistics import (
    clustered_mean,
    clustered_ratio,
    crossed_mean,
    mean_cosine,
    ridge_probe,
    wins,
)


def test_equal_scores_are_half_a_win() -> None:
    assert wins(np.array([1.0, 0.0, 2.0]), np.array([0.0, 1.0, 2.0])).tolist() == [1.0, 0.0, 0.5]


def test_scores_within_rounding_are_half_a_win() -> None:
    ours, theirs = np.array([0.009, -0.009, 0.02]), np.zeros(3)
    assert wins(ours, theirs, 0.01).tolist() == [0.5, 0.5, 1.0]


def test_copies_of_one_persons_value_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    value_U = rng.random(40)
    once = clustered_mean(value_U, np.arange(40), np.random.default_rng(1))
    many = clustered_mean(
        np.repeat(value_U, 25), np.repeat(np.arange(40), 25), np.random.default_rng(1)
    )
    assert many.count == 1000
    assert many.clusters == 40
    assert (many.low, many.high) == pytest.approx((once.low, once.high))


def test_the_interval_is_that_of_a_mean_of_independent_values() -> None:
    value_R = np.random.default_rng(2).normal(3.0, 2.0, 400)
    out = clustered_mean(value_R, np.arange(400), np.random.default_rng(3))
    half_width = 1.96 * value_R.std() / 20
    assert out.mean == pytest.approx(value_R.mean())
    assert (out.high - out.low) / 2 == pytest.approx(half_width, rel=0.1)
    assert out.contains(out.mean)
    assert not out.contains(out.high + 1)


def test_one_cluster_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least two"):
        clustered_mean(np.ones(3), np.zeros(3, dtype=np.int64), np.random.default_rng(0))


def test_seeds_that_differ_widen_the_interval_by_their_own_spread() -> None:
    rng = np.random.default_rng(4)
    of_person_R = rng.normal(size=400)
    of_seed_S1 = np.array([[-1.0], [0.0], [1.0]])
    alike = crossed_mean(np.stack([of_person_R] * 3), np.arange(400), np.random.default_rng(5))
    apart = crossed_mean(of_person_R + of_seed_S1, np.arange(400), np.random.default_rng(5))
    assert alike.mean == pytest.approx(apart.mean)
    people_alone = clustered_mean(of_person_R, np.arange(400), np.random.default_rng(6))
    assert alike.high - alike.low == pytest.approx(people_alone.high - people_alone.low, rel=0.1)
    half_width = 1.96 * (2 / 3 / 3 + 1 / 400) ** 0.5
    assert (apart.high - apart.low) / 2 == pytest.approx(half_width, rel=0.15)
    assert apart.count == 1200
    with pytest.raises(ValueError, match="two of each"):
        crossed_mean(of_person_R[None], np.arange(400), rng)


def test_a_ratio_is_that_of_the_means_and_its_interval_redraws_people() -> None:
    rng = np.random.default_rng(0)
    person_R = np.repeat(np.arange(400), 2)
    below_R = np.repeat(rng.uniform(1, 3, 400), 2)
    above_R = 0.8 * below_R
    exact = clustered_ratio(above_R, below_R, person_R, rng)
    assert exact.mean == pytest.approx(0.8)
    assert exact.low == pytest.approx(exact.high)  # both move together
    apart = clustered_ratio(rng.permutation(above_R), below_R, person_R, rng)
    assert apart.low < 0.8 < apart.high
    with pytest.raises(ValueError, match="too close to zero"):
        clustered_ratio(above_R, np.eye(1, len(below_R))[0], person_R, rng)


def test_the_probe_reads_what_is_linear_and_nothing_from_noise() -> None:
    rng = np.random.default_rng(4)
    look_RL = rng.normal(size=(600, 3))
    linear_RF = look_RL @ rng.normal(size=(3, 20)) + 5.0
    noise_RF = rng.normal(size=(600, 20))
    for feature_RF, expected in ((linear_RF, 1.0), (noise_RF, 0.0)):
        guess_RL = ridge_probe(feature_RF[:500], look_RL[:500], feature_RF[500:], penalty=1e-4)
        assert mean_cosine(guess_RL, look_RL[500:]) == pytest.approx(expected, abs=0.15)
