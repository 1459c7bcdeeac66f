"""Simulated people of the procedural world answer pairs of pictures.

One person is one seed. `simulate` turns it into a hidden taste, four-choice support sets (what a
person answers in the quiz, and what the VLM reads), and query pairs (what the adapter trains on).
Ties never train, and a picture shown in a person's support sets is never in their query pairs.

Dimension letters: P query pairs, E support sets ("encodings"), 4 answers each, 2 pictures each,
L looks, K samples of the population.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from training.world import users

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
Split = Literal["train", "validate", "test"]

CHOICES_PER_PROFILE = 4
"""N of the paper: pairs behind one embedding."""

SPLIT_SEEDS: Mapping[Split, range] = {
    "train": range(10_000_000, 20_000_000),
    "validate": range(20_000_000, 30_000_000),
    "test": range(30_000_000, 40_000_000),
}
"""Seeds of people, by what may be done with them. Hyperparameters are chosen on "validate";
"test" people are seen when the numbers that are reported are made, by evaluate.py and by
benchmarks/end_to_end.py (from the 500th on), and never trained on."""


class Pictures(Protocol):
    """What is needed of a picture store: standardised looks, and which pictures share content."""

    looks: FloatArray
    """N x L."""

    def by_content(self) -> list[IntArray]:
        """Indices of the pictures of each content."""


@dataclass(frozen=True)
class Person:
    """Everything one simulated person answered.

    taste_L: hidden; support_pictures_E42: picture indices as shown; support_preferred_E4: 0 or 1;
    chosen_P, rejected_P: picture indices of the query pairs.
    """

    seed: int
    taste_L: FloatArray
    support_pictures_E42: IntArray
    support_preferred_E4: IntArray
    chosen_P: IntArray
    rejected_P: IntArray


def person_seeds(split: Split, count: int, first: int = 0) -> list[int]:
    """The seeds of `count` people of a split, from its `first`-th on.

    Raises ValueError when the split does not hold so many.
    """
    seeds = SPLIT_SEEDS[split]
    if first < 0 or count < 1 or first + count > len(seeds):
        raise ValueError(
            f"people {first}..{first + count} of split {split!r}, which holds {len(seeds)}"
        )
    return list(seeds[first : first + count])


def taste_of(population: users.Population, seed: int) -> FloatArray:
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
    gap = users.utility(taste_L, looks_0L) - users.utility(taste_L, looks_1L)
    if abs(float(gap)) < tie_below:
        return None
    return int(users.choose(taste_L, looks_0L, looks_1L, rng))


def simulate(
    seed: int,
    taste_L: FloatArray,
    pictures: Pictures,
    *,
    support_sets: int,
    query_pairs: int,
    tie_below: float = 0.0,
) -> Person:
    """One person answers random same-content pairs until every set and query is decided.

    Deterministic in `seed`. Raises ValueError when the store cannot supply undecided-free pairs
    (everything ties).
    """
    rng = np.random.default_rng([seed, 1])
    contents = [indices for indices in pictures.by_content() if len(indices) > 1]
    if not contents:
        raise ValueError("no content has two pictures to compare")
    wanted = support_sets * CHOICES_PER_PROFILE
    support: list[tuple[int, int, int]] = []
    query: list[tuple[int, int]] = []
    shown: set[int] = set()
    for _ in range(100 * (wanted + query_pairs)):
        if len(support) == wanted and len(query) == query_pairs:
            break
        same = contents[int(rng.integers(len(contents)))]
        first, second = (int(i) for i in rng.choice(same, 2, replace=False))
        if first in shown or second in shown:
            continue
        preferred = answer(
            taste_L, pictures.looks[first], pictures.looks[second], rng, tie_below=tie_below
        )
        if preferred is None:
            continue
        if len(support) < wanted:
            support.append((first, second, preferred))
            shown |= {first, second}
        else:
            query.append((first, second) if preferred == 0 else (second, first))
    else:
        raise ValueError(
            f"person {seed} decided {len(support) + len(query)} of {wanted + query_pairs} pairs: "
            f"tie_below={tie_below} leaves too few"
        )
    support_S3 = np.array(support, dtype=np.int64).reshape(support_sets, CHOICES_PER_PROFILE, 3)
    query_P2 = np.array(query, dtype=np.int64).reshape(query_pairs, 2)
    return Person(
        seed=seed,
        taste_L=taste_L,
        support_pictures_E42=support_S3[..., :2],
        support_preferred_E4=support_S3[..., 2],
        chosen_P=query_P2[:, 0],
        rejected_P=query_P2[:, 1],
    )
