"""Agreement of readings, and the map from it to wins."""

from __future__ import annotations

import numpy as np
import pytest

from training.confidence import Calibration, Measured, agreement, calibrate, checked, plot
from training.confidence import ConfidenceConfig as Config


def test_equal_readings_agree_and_opposite_ones_do_not() -> None:
    same = np.tile([2.0, 1.0], (3, 1))
    opposite = np.array([[1.0, 0.0], [-1.0, 0.0]])
    assert agreement(same[None], np.zeros(2)) == pytest.approx([1.0])
    assert agreement(opposite[None], np.zeros(2)) == pytest.approx([-1.0])


def test_a_part_that_all_embeddings_share_is_no_agreement() -> None:
    rng = np.random.default_rng(0)
    readings_URD = 100 + rng.normal(size=(200, 4, 8))
    assert agreement(readings_URD, np.zeros(8)).min() > 0.99
    assert abs(agreement(readings_URD, np.full(8, 100.0)).mean()) < 0.05


def test_the_map_never_falls_and_promises_what_was_won() -> None:
    rng = np.random.default_rng(1)
    confidence_U = rng.random(400)
    won_U = (rng.random(400) < 0.3 + 0.6 * confidence_U).astype(float)
    calibration = calibrate(confidence_U, won_U)
    grid = calibration(np.linspace(0, 1, 101))
    assert (np.diff(grid) >= 0).all()
    assert calibration(confidence_U).mean() == pytest.approx(won_U.mean(), abs=0.02)
    assert grid[80] == pytest.approx(0.3 + 0.6 * 0.8, abs=0.12)
    assert calibration(np.array([-5.0, 5.0])).tolist() == [grid[0], grid[-1]]


def measured(rng: np.random.Generator, people: int) -> Measured:
    true_U = rng.random(people)
    won_U = rng.binomial(4, 0.4 + 0.5 * true_U) / 4
    noise_U = rng.random(people)
    confidence = {"agreement": true_U, "token_probability": noise_U, "best_estimate": true_U}
    return Measured(confidence, won_U, np.zeros(2))  # type: ignore[arg-type]


def test_a_measure_that_tells_is_told_from_one_that_does_not(tmp_path: object) -> None:
    rng = np.random.default_rng(2)
    fitted, tested = measured(rng, 300), measured(rng, 300)
    config = Config(out="unused")  # type: ignore[arg-type]
    reports = {
        name: checked(
            calibrate(fitted.confidence[name], fitted.won_U), fitted, tested, name, config
        )
        for name in fitted.confidence
    }
    good, bad = reports["agreement"], reports["token_probability"]
    assert good["spearman"] > 0.35 > abs(bad["spearman"]) + 0.15
    assert good["squared_error"] < good["squared_error_of_mean"]
    assert good["more_confident_half"]["low"] > good["less_confident_half"]["high"]
    assert bad["squared_error"] > good["squared_error"]
    maps: dict[str, Calibration] = {
        name: calibrate(fitted.confidence[name], fitted.won_U) for name in fitted.confidence
    }
    assert plot(maps, fitted, tested).startswith(b"\x89PNG")  # type: ignore[arg-type]
