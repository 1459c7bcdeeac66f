"""How people of the world come to four choices: of pairs at random, or of what the service asks.

"random" pairs are painted for each person, as the pairs of a data set come about. "served" ones are
of the quiz's own pool, asked one after the other as `GET /users/{id}/quiz` does: the next pair is
the one that tells most given the answers so far ("active" in pair_choice.py), in the coordinates
that the pool is shipped with.

Legend: 4 answers, 2 pictures of a pair, L looks, P pairs of the pool, K coordinates, B pictures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ppd_model.pictures.reading import KEPT, read_picture
from ppd_model.types import LabelledPair
from training.data.preferences import CHOICES_PER_PROFILE
from training.quiz.pair_strategies import Asked, QuizPool, QuizRules, play
from training.world import captions, tastes
from training.world.captions import canonical
from training.world.painter import paint
from training.world.people import answer, taste_of
from training.world.scene import CONTENTS, LOOKS, SETTINGS, Scene

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
Pictures = NDArray[np.uint8]
LooksOf = Callable[[Pictures, IntArray], FloatArray]
"""Looks (B x L, standard deviations) of uint8 pictures B x H x W x 3 that show these contents."""

QuizName = Literal["random", "served"]
POOL_DIR = Path(__file__).parents[2] / "service" / "pool"
NEAR_BEST = 0.9
"""As the service asks (service/core/quiz.py); see `QuizRules`."""


@dataclass(frozen=True)
class Person:
    """A simulated person and what they answered.

    delta_4L: looks of the second picture minus the first's; preferred_4: 0 or 1.
    """

    taste_L: FloatArray
    choices: list[LabelledPair]
    delta_4L: FloatArray
    preferred_4: IntArray


class Quiz(Protocol):
    """Who is asked what."""

    def __call__(self, taste_L: FloatArray, rng: np.random.Generator) -> Person:
        """Four decided choices of a person with this taste; deterministic in the state of `rng`."""


def make_quiz(
    name: QuizName, looks_of: LooksOf, tie_below: float, pool_dir: Path = POOL_DIR
) -> Quiz:
    """The quiz of that name. tie_below: as in `training.world.people.answer`."""
    if name == "random":
        return RandomPairs(looks_of, tie_below)
    return ServedPairs(load_quiz_pool(pool_dir, looks_of), tie_below)


def quiz_people(quiz: Quiz, seeds: Sequence[int]) -> list[Person]:
    """The world's people of these seeds, each with four answered pairs."""
    population = tastes.Population()
    return [quiz(taste_of(population, seed), np.random.default_rng([seed, 6])) for seed in seeds]


class RandomPairs:
    """Four random pairs of one content each; a pair the person cannot decide is replaced."""

    def __init__(self, looks_of: LooksOf, tie_below: float) -> None:
        self.looks_of = looks_of
        self.tie_below = tie_below

    def __call__(self, taste_L: FloatArray, rng: np.random.Generator) -> Person:
        choices: list[LabelledPair] = []
        deltas: list[FloatArray] = []
        while len(choices) < CHOICES_PER_PROFILE:
            subject, setting = divmod(int(rng.integers(CONTENTS)), len(SETTINGS))
            images = np.stack([paint(random_scene(subject, setting, rng)) for _ in range(2)])
            looks_2L = self.looks_of(images, np.full(2, subject * len(SETTINGS) + setting))
            preferred = answer(taste_L, looks_2L[0], looks_2L[1], rng, tie_below=self.tie_below)
            if preferred is None:
                continue
            choices.append(
                LabelledPair(
                    caption=captions.caption(subject, setting, rng),
                    image_0=Image.fromarray(images[0]),
                    image_1=Image.fromarray(images[1]),
                    preferred=preferred,
                )
            )
            deltas.append(looks_2L[1] - looks_2L[0])
        preferred_4 = np.array([choice.preferred for choice in choices], dtype=np.int64)
        return Person(taste_L, choices, np.stack(deltas), preferred_4)


class ServedPairs:
    """The first four pairs of the pool that the service would ask and the person can decide."""

    def __init__(self, pool: QuizPool, tie_below: float) -> None:
        self.pool = pool
        self.rules = QuizRules(CHOICES_PER_PROFILE, NEAR_BEST, tie_below, oracle_samples=0)

    def __call__(self, taste_L: FloatArray, rng: np.random.Generator) -> Person:
        nobody_SL = np.zeros((0, len(taste_L)))
        seed = int(rng.integers(2**32))
        asked = play("active", self.pool, taste_L.astype(np.float64), seed, nobody_SL, self.rules)
        pairs_4, preferred_4 = asked.decided()
        return Person(
            taste_L=taste_L,
            choices=choices_of(asked, self.pool, range(CHOICES_PER_PROFILE)),
            delta_4L=self.pool.looks_PL[pairs_4].astype(np.float32),
            preferred_4=preferred_4,
        )


def random_scene(subject: int, setting: int, rng: np.random.Generator) -> Scene:
    """A scene of that content with random looks."""
    looks_L = rng.uniform(-1, 1, len(LOOKS)).astype(np.float32)
    return Scene(subject, setting, looks_L, int(rng.integers(2**31)))


def load_quiz_pool(
    pool_dir: Path, looks_of: LooksOf, coordinates_PK: NDArray[np.float64] | None = None
) -> QuizPool:
    """Pairs, pictures, and looks as they are measured in the files that people see.

    coordinates_PK: None takes those that the pool is shipped with.
    """
    pairs = json.loads((pool_dir / "pairs.json").read_text())["pairs"]
    content_of = {canonical(*divmod(c, len(SETTINGS))): c for c in range(CONTENTS)}
    images, looks = [], []
    for pair in pairs:
        opened = []
        for image in pair["images"]:
            file = pool_dir / "images" / image["file"]
            opened.append(read_picture(file.read_bytes(), KEPT))
        images.append((opened[0], opened[1]))
        pixels = np.stack([np.asarray(image) for image in opened])
        looks_2L = looks_of(pixels, np.full(2, content_of[pair["caption"]]))
        looks.append(looks_2L[1] - looks_2L[0])
    if coordinates_PK is None:
        coordinates_PK = np.array([pair["look_delta"] for pair in pairs], dtype=np.float64)
    return QuizPool(
        pair_ids=[pair["pair_id"] for pair in pairs],
        captions=[pair["caption"] for pair in pairs],
        images=images,
        looks_PL=np.stack(looks).astype(np.float64),
        coordinates_PK=coordinates_PK,
    )


def choices_of(asked: Asked, pool: QuizPool, places: Sequence[int]) -> list[LabelledPair]:
    """Decided answers at these places, as the VLM is asked."""
    pairs_N, answers_N = asked.decided()
    return [
        LabelledPair(
            caption=pool.captions[pairs_N[place]],
            image_0=pool.images[pairs_N[place]][0],
            image_1=pool.images[pairs_N[place]][1],
            preferred=int(answers_N[place]),
        )
        for place in places
    ]
