"""In the world nobody has to guess: the person's own hidden taste judges.

Legend: L looks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.judges.judge import Question
from training.rewards.world_rewards import contents_named
from training.world import tastes
from training.world.looks import Standardizer

SAME_WITHIN = 0.01
"""Scores (utility) this close are no preference, as in training.evaluate."""


class TasteJudge:
    """One person of the world. The choices are theirs and tell nothing new."""

    def __init__(self, taste_L: NDArray[np.float32], standardizer: Standardizer) -> None:
        self.taste_L = taste_L
        self.standardizer = standardizer
        self.identity = "hidden taste"

    def prefer(self, question: Question) -> int | None:
        """As `Judge.prefer`: the picture whose looks the person likes better, without a doubt.

        Raises ValueError for a prompt that names no content of the world.
        """
        images = np.stack(
            [np.asarray(image.convert("RGB")) for image in (question.first, question.second)]
        )
        looks_2L = self.standardizer.looks(images, contents_named([question.prompt] * 2))
        gap = float(
            tastes.utility(self.taste_L, looks_2L[1]) - tastes.utility(self.taste_L, looks_2L[0])
        )
        if abs(gap) <= SAME_WITHIN:
            return None
        return int(gap > 0)
