"""Every option of training.pair_choice."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from training.jobs.configuration import Configuration
from training.jobs.shared_options import (
    Adapter,
    EncodeBatch,
    FirstPerson,
    ModelName,
    Out,
    PictureBatch,
    PopulationSamples,
    PromptsEach,
    Seed,
    Threads,
    TieBelow,
    WeightsDir,
)
from training.quiz.pair_strategies import (
    STRATEGIES,
    Strategy,
)
from training.quiz.quizzes import NEAR_BEST, POOL_DIR


class PairChoiceConfig(Configuration):
    """Who is asked, by which strategies, and what is measured."""

    out: Out
    taste_space: Path
    """File of training.taste_space."""
    pool_dir: Path = POOL_DIR
    """Pairs that are asked."""
    preset: ModelName = "mini"
    weights_dir: WeightsDir = None
    probe_data: Path | None = None
    """What training.precompute wrote, for the linear probe; null leaves the VLM out."""
    adapter: Adapter = None
    strategies: tuple[Strategy, ...] = STRATEGIES
    """How the next pair is chosen."""
    near_best: float = NEAR_BEST
    """See pair_strategies.QuizRules."""
    people: int = 64
    """How many people."""
    split: Literal["train", "validate", "test"] = "test"
    """People of which seeds."""
    first_person: FirstPerson = 20_000
    answers: int = 8
    """Decided answers of each person."""
    win_at: tuple[int, ...] = ()
    """Numbers of answers at which pictures are compared."""
    prompts: PromptsEach = 4
    tie_below: TieBelow = 0.1
    population_samples: PopulationSamples = 20_000
    oracle_samples: int = 1_000
    """People that the oracle imagines."""
    encode_batch: EncodeBatch = 32
    picture_batch: PictureBatch = 32
    threads: Threads = 1
    seed: Seed = 0
