"""Where a stated taste lies in an embedding space, from people's readings.

The embedding of mini's VLM holds the estimate of the taste linearly: one linear map reads it, and
the regression of the embeddings on what is read says how the embedding of a taste differs.

Legend: N people, D embedding, L looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
RIDGE = 0.05
STATED = 0.8
"""Length of a stated taste, at ordinary degree: more than readings have, and within their reach."""


@dataclass(frozen=True)
class EmbeddingMap:
    """``mean_D + taste_L @ write_LD`` is the embedding of a taste; ``read`` gives it back."""

    mean_D: Floats
    read_DL: Floats
    write_LD: Floats

    @classmethod
    def fit(cls, user_emb_ND: Floats, estimate_NL: Floats) -> EmbeddingMap:
        """From readings and the best estimates of the same people's tastes."""
        mean_D = user_emb_ND.mean(axis=0, dtype=np.float64)
        centred_ND = user_emb_ND - mean_D
        gram = centred_ND.T @ centred_ND / len(centred_ND)
        ridge = RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
        read_DL = np.linalg.solve(gram + ridge, centred_ND.T @ estimate_NL / len(centred_ND))
        read_NL = centred_ND @ read_DL
        write_LD = np.linalg.solve(read_NL.T @ read_NL, read_NL.T @ centred_ND)
        return cls(mean_D, read_DL, write_LD)

    def read(self, user_emb_ND: Floats) -> Floats:
        """The taste that an embedding holds, N x L."""
        taste_NL: Floats = (user_emb_ND - self.mean_D) @ self.read_DL
        return taste_NL

    def stated(self, says_L: Floats, user_emb_D: Floats | None = None) -> Floats:
        """The embedding of what is stated; where nothing is, as shown (``user_emb_D``) if it was.

        A statement that what was shown bears out counts half as far: it need not turn anything
        round, and one's own profile changes nothing.
        """
        if user_emb_D is None:
            alone_D: Floats = self.mean_D + self.level(says_L) @ self.write_LD
            return alone_D
        shown_L, level_L = self.read(user_emb_D[None])[0], self.level(says_L)
        borne_out_L = shown_L * level_L > 0
        more_L = np.where(np.abs(shown_L) > np.abs(level_L) / 2, shown_L, level_L / 2)
        wanted_L = np.where(level_L == 0, shown_L, np.where(borne_out_L, more_L, level_L))
        both_D: Floats = user_emb_D + (wanted_L - shown_L) @ self.write_LD
        return both_D

    @staticmethod
    def level(says_L: Floats) -> Floats:
        """What a text says as part of a taste, of the same length however much it names."""
        named = np.sum(np.minimum(np.abs(says_L), 1.0) ** 2)
        level_L: Floats = STATED * says_L / np.sqrt(max(1.0, float(named)))
        return level_L

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, mean=self.mean_D, read=self.read_DL, write=self.write_LD)

    @classmethod
    def load(cls, path: Path) -> EmbeddingMap:
        with np.load(path) as arrays:
            return cls(arrays["mean"], arrays["read"], arrays["write"])
