"""People who answer the quiz, and the VLM's readings of their answers, four at a time.

Legend: U people, S sets of four, P pairs of the pool, N answers, K coordinates, D embedding,
L looks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ppd_model.user_encoder import UserEncoder
from training.calibration.calibration_config import CalibrationConfig
from training.data.preferences import CHOICES_PER_PROFILE
from training.data.shards import ShardFolder, read_shards
from training.quiz.answered_sets import read_sets
from training.quiz.pair_strategies import Asked, QuizPool, QuizRules, play
from training.quiz.quizzes import choices_of
from training.world import tastes
from training.world.people import SeedRange, person_seeds, taste_of

FloatArray = NDArray[np.float64]

PEOPLE_AT_ONCE = 16
"""Whose answers are read between two times that readings are kept."""


@dataclass(frozen=True)
class Quizzed:
    """People of one split: their seeds and true tastes, what they answered, how it was read."""

    seeds: list[int]
    taste_UL: FloatArray
    asked: list[Asked]
    reading_USD: FloatArray

    def with_others(self, others: Quizzed) -> Quizzed:
        """These people, then the others."""
        return Quizzed(
            self.seeds + others.seeds,
            np.concatenate([self.taste_UL, others.taste_UL]),
            self.asked + others.asked,
            np.concatenate([self.reading_USD, others.reading_USD]),
        )

    def answers(self, person: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs and choices of this person's first `count` decided answers."""
        pairs_N, preferred_N = self.asked[person].decided()
        return pairs_N[:count], preferred_N[:count]


def quiz_and_read(
    split: SeedRange,
    people: int,
    pool: QuizPool,
    encoder: UserEncoder,
    config: CalibrationConfig,
    resume: bool,
) -> Quizzed:
    """Ask these people and read their answers; OUT/readings/SPLIT is resumable.

    Raises ValueError when a set could not be read.
    """
    seeds = person_seeds(split, people, config.first_person)
    population = tastes.Population()
    taste_UL = np.stack([taste_of(population, seed) for seed in seeds]).astype(np.float64)
    rules = QuizRules(config.answers, config.near_best, config.tie_below, oracle_samples=0)
    nobody_SL = np.zeros((0, taste_UL.shape[1]))
    asked = [
        play("active", pool, taste_L, seed, nobody_SL, rules)
        for taste_L, seed in zip(taste_UL, seeds, strict=True)
    ]
    made_with = config.model_dump(
        mode="json", include={"first_person", "answers", "near_best", "tie_below"}
    ) | {"people": people, "encoder": encoder.encoder_version, "pairs": pool.pair_ids}
    folder = ShardFolder(config.out / "readings" / split, made_with, resume)
    starts = range(0, config.answers, CHOICES_PER_PROFILE)
    for name, some in folder.missing("sets", people, PEOPLE_AT_ONCE):
        many = [
            choices_of(quiz, pool, range(start, start + CHOICES_PER_PROFILE))
            for quiz in asked[some]
            for start in starts
        ]
        read = read_sets(encoder, many, batch=config.encode_batch, what=split).complete()
        folder.write(name, {"user_emb_ED": read.user_emb_ED})
    folder.finish()
    shards = read_shards(folder.folder, "sets-")
    emb_ED = np.concatenate([shard["user_emb_ED"].double().numpy() for shard in shards])
    return Quizzed(seeds, taste_UL, asked, emb_ED.reshape(people, -1, emb_ED.shape[-1]))
