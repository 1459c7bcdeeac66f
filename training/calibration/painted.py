"""Pictures for people after several numbers of answers, and how they liked them.

Legend: U people, N numbers of answers, K prompts of a person, S sets of four, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from ppd_model.answers import AnswerModel, Belief, belief
from ppd_model.readings import Expected, toward_expected
from training.calibration.calibration_config import CalibrationConfig
from training.calibration.quizzed import Quizzed
from training.data.preferences import CHOICES_PER_PROFILE
from training.data.shards import ShardFolder
from training.evaluate.painting import SAME_WITHIN, Painter, spread_prompts
from training.quiz.pair_strategies import QuizPool
from training.reports.statistics import wins
from training.world import tastes

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Painted:
    """Against the base's picture of the same prompt and seed: wins, and gains in looks' standard
    deviations along the taste; whether the picture shows what the prompt says. All U x N x K."""

    won_UNK: FloatArray
    gain_UNK: FloatArray
    content_UNK: FloatArray

    def with_others(self, others: Painted) -> Painted:
        """Of these people, then of the others."""
        return Painted(
            np.concatenate([self.won_UNK, others.won_UNK]),
            np.concatenate([self.gain_UNK, others.gain_UNK]),
            np.concatenate([self.content_UNK, others.content_UNK]),
        )


def beliefs(people: Quizzed, pool: QuizPool, count: int) -> Belief:
    """What each person's first `count` answers say, one alternative a person."""
    each = [
        belief(pool.coordinates_PK[pairs_N], preferred_N)
        for pairs_N, preferred_N in (people.answers(u, count) for u in range(len(people.seeds)))
    ]
    return Belief(np.stack([b.mean_K for b in each]), np.stack([b.covariance_KK for b in each]))


def embeddings(people: Quizzed, pool: QuizPool, model: AnswerModel, count: int) -> FloatArray:
    """As the service joins readings of `count` answers, U x D: one alone is left as it is."""
    sets = count // CHOICES_PER_PROFILE
    mean_UD: FloatArray = people.reading_USD[:, :sets].mean(1)
    if sets == 1:
        return mean_UD
    expected_UD = model.expected_reading(beliefs(people, pool, count).mean_K)
    return toward_expected(mean_UD, Expected(expected_UD))


def paint(
    people: Quizzed,
    pool: QuizPool,
    model: AnswerModel,
    painter: Painter,
    config: CalibrationConfig,
    resume: bool,
) -> Painted:
    """Paint and judge; OUT/pictures/SEED is resumable."""
    first = people.seeds[0]
    made_with = {
        "people": [first, len(people.seeds)],
        "adapter": painter.pipeline.adapter_version,
        "offset": model.offset_D,
        "prompts": config.prompts,
        "seed": config.seed,
    }
    folder = ShardFolder(config.out / "pictures" / str(first), made_with, resume)
    rng = np.random.default_rng([config.seed, first, 24])  # as training.pair_choice
    prompts = spread_prompts(len(people.seeds) * config.prompts, first + 1000, rng)
    content_B = np.array([prompt.content for prompt in prompts])
    named = ["base", *(f"after-{count}" for count in config.paint_at)]
    for name, count in zip(named, (0, *config.paint_at), strict=True):
        if folder.has(f"{name}.safetensors"):
            continue
        emb_UD = embeddings(people, pool, model, count) if count else None
        own = (
            [None] * len(prompts)
            if emb_UD is None
            else list(np.repeat(emb_UD, config.prompts, axis=0).astype(np.float32))
        )
        shown = painter.paint(name, prompts, own)
        right_B = (shown.content_named == content_B).astype(np.float32)
        folder.write(f"{name}.safetensors", {"looks_BL": shown.looks, "content_B": right_B})
    folder.finish()
    base, *after = [load_file(folder.folder / f"{name}.safetensors") for name in named]
    taste_BL = np.repeat(people.taste_UL, config.prompts, axis=0).astype(np.float32)
    base_B = tastes.utility(taste_BL, base["looks_BL"].numpy())

    def by_person(value_B: NDArray[np.floating]) -> FloatArray:
        return np.asarray(value_B, dtype=np.float64).reshape(len(people.seeds), config.prompts)

    looks = [one["looks_BL"].numpy() for one in after]
    base_BL = base["looks_BL"].numpy()
    return Painted(
        won_UNK=np.stack(
            [
                by_person(wins(tastes.utility(taste_BL, own_BL), base_B, SAME_WITHIN))
                for own_BL in looks
            ],
            axis=1,
        ),
        gain_UNK=np.stack(
            [by_person((taste_BL * (own_BL - base_BL)).sum(1)) for own_BL in looks], axis=1
        ),
        content_UNK=np.stack([by_person(one["content_B"].numpy()) for one in after], axis=1),
    )
