"""Every option of training.pair_choice."""

from __future__ import annotations

from pathlib import Path

from training.evaluate.evaluate_config import PersonalPictures
from training.jobs.shared_options import FirstPerson, PopulationSamples
from training.quiz.pair_strategies import STRATEGIES, Strategy
from training.quiz.quizzes import NEAR_BEST, POOL_DIR
from training.world.people import SeedRange


class PairChoiceConfig(PersonalPictures):
    """Who is asked, by which strategies, and what is measured."""

    taste_space: Path | None = None
    """File of training.taste_space; null: the coordinates that the pool is shipped with."""
    pool_dir: Path = POOL_DIR
    """Pairs that are asked."""
    probe_data: Path | None = None
    """What training.precompute wrote, for the linear probe; null leaves the VLM out."""
    strategies: tuple[Strategy, ...] = STRATEGIES
    """How the next pair is chosen."""
    near_best: float = NEAR_BEST
    """See pair_strategies.QuizRules."""
    people: int = 64
    """How many people."""
    split: SeedRange = "test"
    """People of which seeds."""
    first_person: FirstPerson = 20_000
    answers: int = 8
    """Decided answers of each person."""
    win_at: tuple[int, ...] = ()
    """Numbers of answers at which pictures are compared."""
    population_samples: PopulationSamples = 20_000
    oracle_samples: int = 1_000
    """People that the oracle imagines."""
