"""Every option of training.win_rates."""

from __future__ import annotations

from pathlib import Path

from pydantic import PositiveInt

from training.jobs.shared_options import Out, SamplingOptions, Seed, Strength, Threads
from training.judges.known_choices import TestSplit
from training.judges.options import JudgeOptions
from training.win_rates.user_features import Answers

BASE, ANOTHER = "base", "another"
SPLITS: tuple[TestSplit, ...] = ("seen_users", "unseen_users")
FIRST_SEED = 800_000_000
"""Of the first picture: far from the seeds of pictures that are trained on."""


class WinRatesConfig(JudgeOptions, SamplingOptions):
    """Who is asked for, about what, and who paints.

    An adapter is given of a person what it was trained with, from these `answers`
    (user_features.py).
    """

    out: Out
    adapters: dict[str, Path]
    """A file for each method; the first is compared with all others too."""
    another: bool = True
    """Paint everybody also from the profile of another person of their split, by the first
    adapter: what is won over the base by that has nothing to do with the person."""
    answers: Answers = "first_set"
    """Which of a person's answers stand for them."""
    people: PositiveInt | None = None
    """Of each split, the first so many that could be read; null: all."""
    prompts: PositiveInt = 1
    """Of each person, at most."""
    strength: Strength = 1.0
    threads: Threads = 1
    seed: Seed = 0

    def model_post_init(self, _: object) -> None:
        """Raises ValueError where nothing could be compared."""
        if not self.adapters or {BASE, ANOTHER} & self.adapters.keys():
            raise ValueError(
                f"adapters {list(self.adapters)}: one at least, none called {BASE!r} or {ANOTHER!r}"
            )
