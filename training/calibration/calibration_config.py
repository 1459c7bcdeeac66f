"""Every option of training.calibration."""

from __future__ import annotations

from pathlib import Path

from training.evaluate.evaluate_config import PersonalPictures
from training.quiz.quizzes import NEAR_BEST, POOL_DIR


class CalibrationConfig(PersonalPictures):
    """Whose answers are read, when they are painted for, and how many people there are."""

    pool_dir: Path = POOL_DIR
    """Pairs that are asked."""
    validate_people: int = 64
    """People of "validate"; on their readings the expected reading is fitted."""
    test_people: int = 64
    """People of "test", who had no part in the expected reading; may be none."""
    answers: int = 16
    """Decided answers of each person."""
    paint_at: tuple[int, ...] = (4, 8, 16)
    """Numbers of answers after which pictures are painted, in multiples of four."""
    near_best: float = NEAR_BEST
    """See pair_strategies.QuizRules."""
    most_off: float = 0.05
    """Promised and won may differ by so much in a group; else nothing is promised."""
