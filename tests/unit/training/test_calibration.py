"""What answers foretell: fitted on some people, checked on others."""

import numpy as np
import pytest

from training.calibration.__main__ import Answered, by_promise, fit_readings, fit_wins
from training.calibration.quizzed import Quizzed
from training.quiz.pair_strategies import Asked, QuizPool


def people_and_pool(rng: np.random.Generator, people: int = 60) -> tuple[Quizzed, QuizPool]:
    """Readings that are 10 times the first coordinate's answers, and noise, around 3."""
    coordinates_PK = rng.normal(size=(40, 2)) * 2
    pool = QuizPool([str(i) for i in range(40)], [""] * 40, [], coordinates_PK, coordinates_PK)
    asked, readings = [], []
    for _ in range(people):
        taste_K = rng.normal(size=2)
        pairs = rng.permutation(40)[:8]
        answers = (coordinates_PK[pairs] @ taste_K > 0).astype(int)
        asked.append(Asked(pairs.tolist(), answers.tolist()))
        readings.append(3 + 10 * taste_K[0] + rng.normal(size=(2, 1)) * np.array([1.0, 0.0]))
    return Quizzed(list(range(people)), np.zeros((people, 2)), asked, np.stack(readings)), pool


def test_the_expected_reading_follows_the_mean_taste() -> None:
    people, pool = people_and_pool(np.random.default_rng(0))
    reading_KD, offset_D = fit_readings(people, pool)
    assert reading_KD.shape == (2, 2)
    assert (reading_KD[0] > 8).all()
    assert (np.abs(reading_KD[1]) < 3).all()
    assert offset_D == pytest.approx([3, 3], abs=2)


def test_the_map_to_wins_is_found_again() -> None:
    rng = np.random.default_rng(1)
    clear_X = rng.uniform(0, 4, 4000)
    won_X = (rng.random(4000) < 1 / (1 + np.exp(-(0.5 + 0.8 * clear_X)))).astype(float)
    of = Answered(np.arange(4000), np.full(4000, 4), clear_X, won_X)
    assert fit_wins(of) == pytest.approx((0.5, 0.8), abs=0.15)


def test_the_map_to_wins_never_falls() -> None:
    clear_X = np.linspace(0, 4, 100)
    of = Answered(np.arange(100), np.full(100, 4), clear_X, (clear_X < 2).astype(float))
    at_none, by = fit_wins(of)
    assert by == pytest.approx(0, abs=1e-6)
    assert at_none == pytest.approx(0, abs=1e-3)


def test_groups_hold_the_promised_beside_the_won() -> None:
    promised_X = np.repeat([0.9, 0.5, 0.6, 0.8, 0.7], 20)
    won_X = np.tile([1.0, 0.0], 50)
    groups = by_promise(promised_X, won_X, np.arange(100), np.random.default_rng(2))
    assert [group["promised"] for group in groups] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])
    assert [group["won"]["mean"] for group in groups] == [0.5] * 5
