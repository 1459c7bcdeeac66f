"""IP-Adapter's way: pictures stand for the person. Features of liked minus disliked ones, averaged.

IP-Adapter (arXiv 2308.06721) lets a network attend to the features of one picture; here they are
of all eight, the rejected ones subtracted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.rivals.answers import Answers, FloatArray

WIDTH = 128


@dataclass(frozen=True)
class PictureDifference:
    """scale_F: standard deviation of each feature over known people's sets; principal_FD: what is
    kept of the scaled features, which are more than an adapter reads."""

    scale_F: FloatArray
    principal_FD: FloatArray

    @classmethod
    def fit(cls, known: Answers) -> PictureDifference:
        mean_EF = known.liked_minus_disliked().mean(1)
        scale_F = mean_EF.std(0) + 1e-8
        _, vector_FF = np.linalg.eigh(np.cov((mean_EF / scale_F).T))
        return cls(scale_F, vector_FF[:, ::-1][:, :WIDTH])

    def read(self, answers: Answers) -> FloatArray:
        """E x D."""
        embedding_ED: FloatArray = (
            answers.liked_minus_disliked().mean(1) / self.scale_F @ self.principal_FD
        )
        return embedding_ED
