"""Simulated people by number."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from training.world import tastes
from training.world.people import SEED_RANGES, answer, person_seeds, taste_of
from training.world.scene import LOOKS

BRIGHT_LOVER = tastes.single_look(0, 1.0)


def test_one_person_is_one_seed() -> None:
    population = tastes.Population()
    assert np.array_equal(taste_of(population, 3), taste_of(population, 3))
    assert not np.array_equal(taste_of(population, 3), taste_of(population, 4))


def test_a_difference_too_small_to_see_is_a_tie() -> None:
    rng = np.random.default_rng(0)
    looks = np.zeros(len(LOOKS), np.float32)
    assert answer(BRIGHT_LOVER, looks, looks, rng, tie_below=0.1) is None
    assert answer(BRIGHT_LOVER, looks, looks + 9, rng, tie_below=0.1) == 1
    assert answer(BRIGHT_LOVER, looks + 9, looks, rng) == 0


def test_ranges_share_no_person() -> None:
    for one, other in itertools.combinations(SEED_RANGES.values(), 2):
        assert one.stop <= other.start or other.stop <= one.start
    assert person_seeds("test", 3, first=2) == [30_000_002, 30_000_003, 30_000_004]
    with pytest.raises(ValueError, match="holds"):
        person_seeds("test", 1, first=10_000_000)
