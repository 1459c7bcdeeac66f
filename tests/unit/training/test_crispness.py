"""The measures of crispness, on pictures whose numbers can be told beforehand."""

import numpy as np
import pytest

from training.pretrain.crispness import Crispness, crispness

SIDE = 32


def grey(luma_HW: np.ndarray) -> np.ndarray:
    """One picture of that luma, in [0, 1]."""
    picture = (luma_HW * 255).round().astype(np.uint8)
    return np.repeat(picture[None, :, :, None], 3, axis=3)


def test_the_energy_of_a_chessboard_is_all_fine_and_is_its_variance() -> None:
    faint = np.random.default_rng(0).uniform(-0.01, 0.01, (SIDE, SIDE))
    fine = 0.3 + 0.4 * (np.indices((SIDE, SIDE)).sum(0) % 2)
    coarse = 0.3 + 0.4 * (np.indices((SIDE, SIDE))[1] // 8 % 2)
    assert crispness(grey(fine + faint)).fine_energy == pytest.approx(0.2**2, rel=0.02)
    assert crispness(grey(coarse + faint)).fine_energy < 0.2**2 / 10


def test_the_edge_of_a_slope_is_the_slope() -> None:
    down, across = np.indices((SIDE, SIDE)) / 255
    assert crispness(grey(3 * down + 4 * across)).edge == pytest.approx(5 / 255)


def test_noise_has_no_grid_and_lines_at_every_fourth_pixel_are_one() -> None:
    noise = np.random.default_rng(0).uniform(0.3, 0.7, (SIDE, SIDE))
    lines = noise + 0.2 * (np.arange(SIDE) % 4 == 0)
    assert crispness(grey(noise)).grid == pytest.approx(1, abs=0.3)
    assert crispness(grey(lines)).grid > 3
    assert crispness(grey(lines.T)).grid == pytest.approx(crispness(grey(lines)).grid, rel=0.5)


def test_half_the_contrast_is_half_the_edge_and_a_quarter_of_the_energy() -> None:
    noise = np.random.default_rng(0).integers(0, 128, (4, SIDE, SIDE, 1)).repeat(3, 3)
    half, whole = crispness(noise.astype(np.uint8)), crispness((2 * noise).astype(np.uint8))
    assert half.over(whole) == Crispness(pytest.approx(0.25), pytest.approx(0.5), pytest.approx(1))
