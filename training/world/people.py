"""Simulated people by number: one person is one seed, with a hidden taste and honest answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.world import tastes

FloatArray = NDArray[np.float32]
SeedRange = Literal["train", "validate", "test"]

SEED_RANGES: Mapping[SeedRange, range] = {
    "train": range(10_000_000, 20_000_000),
    "validate": range(20_000_000, 30_000_000),
    "test": range(30_000_000, 40_000_000),
}
"""Seeds of people, by what may be done with them. Only people of "train" are written into data
sets (world/export.py), whose own splits hold some of them out. Hyperparameters are chosen on
"validate"; "test" people are met when the numbers that are reported are made, by training.evaluate
and by benchmarks/service/end_to_end.py (from the 500th on)."""


def person_seeds(of: SeedRange, count: int, first: int = 0) -> list[int]:
    """The seeds of `count` people of a range, from its `first`-th on.

    Raises ValueError when the range does not hold so many.
    """
    seeds = SEED_RANGES[of]
    if first < 0 or count < 1 or first + count > len(seeds):
        raise ValueError(f"people {first}..{first + count} of {of!r}, which holds {len(seeds)}")
    return list(seeds[first : first + count])


def taste_of(population: tastes.Population, seed: int) -> FloatArray:
    """The hidden taste of the person with that seed, shape L."""
    taste_L: FloatArray = population.sample(1, np.random.default_rng(seed))[0].astype(np.float32)
    return taste_L


def answer(
    taste_L: FloatArray,
    looks_0L: FloatArray,
    looks_1L: FloatArray,
    rng: np.random.Generator,
    *,
    tie_below: float = 0.0,
) -> int | None:
    """0 or 1 for the preferred picture, None for a tie.

    A person sees no difference when their score of the two differs by less than `tie_below` (in
    units of utility); else they choose by Bradley-Terry.
    """
    gap = tastes.utility(taste_L, looks_0L) - tastes.utility(taste_L, looks_1L)
    if abs(float(gap)) < tie_below:
        return None
    return int(tastes.choose(taste_L, looks_0L, looks_1L, rng))
