"""The taste space without a VLM: where the four answers put a person among known people's tastes.

The space is the quiz's own kind (training.taste_space): coordinates in which the tastes of known
people are standard normal, learned from their answers. A person is the mean of what those
coordinates may be after the four answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ppd_model.answers import belief
from training.quiz.taste_model import TasteSpace, fit
from training.rivals.answers import Answers, FloatArray

REDUCED, DIMENSIONS, ROUNDS = 24, 8, 40
"""As training.taste_space has them."""


@dataclass(frozen=True)
class TasteEstimate:
    """Tastes in the space that known people's answers span."""

    basis_FK: NDArray[np.float64]
    mean_K: NDArray[np.float64]

    @classmethod
    def fit(cls, known: Answers) -> TasteEstimate:
        space = fit(
            known.delta_E4F.reshape(-1, known.delta_E4F.shape[-1]).astype(np.float64),
            known.preferred_E4.ravel(),
            np.repeat(known.person_E, known.preferred_E4.shape[1]),
            reduced=REDUCED,
            dimensions=DIMENSIONS,
            rounds=ROUNDS,
        )
        return cls(space.basis_FK, space.mean_K)

    def read(self, answers: Answers) -> FloatArray:
        """E x K."""
        space = TasteSpace(self.basis_FK, self.mean_K)
        coordinates_E4K = space.coordinates(answers.delta_E4F.astype(np.float64))
        means = [
            belief(delta_4K, preferred_4, self.mean_K).mean_K
            for delta_4K, preferred_4 in zip(coordinates_E4K, answers.preferred_E4, strict=True)
        ]
        return np.stack(means)
