"""A population's tastes, one normal distribution in picture features; a person's after answers.

Person u prefers picture 1 of a pair with probability sigmoid(w_u . delta), delta the difference of
the pictures' features. `fit` finds the distribution of w over a population by variational EM
(Jaakkola and Jordan's bound), and from it the coordinates in which tastes are standard normal.

Legend: P pairs answered, U people, F features, R reduced features, K coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from ppd_model.answers import belief

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class TasteSpace:
    """Coordinates of pairs in which tastes are standard normal around `mean_K`.

    basis_FK turns a difference of features into coordinates. mean_K is what the population has in
    common; where people share nothing it is near zero.
    """

    basis_FK: FloatArray
    mean_K: FloatArray

    def coordinates(self, delta_PF: FloatArray) -> FloatArray:
        """P x K; the margin of a person's choice is their taste times these."""
        coordinates_PK: FloatArray = delta_PF @ self.basis_FK
        return coordinates_PK

    def save(self, path: Path) -> None:
        save_file({"basis_FK": self.basis_FK, "mean_K": self.mean_K}, path)

    @classmethod
    def load(cls, path: Path) -> TasteSpace:
        return cls(**load_file(path))


def fit(
    delta_PF: FloatArray,
    preferred_P: IntArray,
    person_P: IntArray,
    *,
    reduced: int,
    dimensions: int,
    rounds: int,
) -> TasteSpace:
    """The population's tastes, by variational EM in the whitened leading components of the pairs.

    Of the fitted covariance the `dimensions` directions of largest variance are kept.
    """
    moment_FF = delta_PF.T @ delta_PF / len(delta_PF)
    value_F, vector_FF = np.linalg.eigh(moment_FF)
    kept = np.argsort(value_F)[::-1][:reduced]
    whiten_FR = vector_FF[:, kept] / np.sqrt(np.maximum(value_F[kept], 1e-12))
    delta_PR = delta_PF @ whiten_FR
    members = [np.flatnonzero(person_P == person) for person in np.unique(person_P)]
    mean_R, covariance_RR = np.zeros(len(kept)), np.eye(len(kept))
    for _ in range(rounds):
        people = [
            belief(delta_PR[rows], preferred_P[rows], mean_R, covariance_RR) for rows in members
        ]
        means_UR = np.stack([person.mean_K for person in people])
        mean_R = means_UR.mean(0)
        away_UR = means_UR - mean_R
        spread_RR = np.mean([person.covariance_KK for person in people], axis=0)
        covariance_RR = away_UR.T @ away_UR / len(members) + spread_RR
    variance_R, direction_RR = np.linalg.eigh(covariance_RR)
    largest = np.argsort(variance_R)[::-1][:dimensions]
    deviation_K = np.sqrt(variance_R[largest])
    direction_RK = direction_RR[:, largest]
    return TasteSpace(
        basis_FK=np.ascontiguousarray(whiten_FR @ (direction_RK * deviation_K)),
        mean_K=mean_R @ direction_RK / deviation_K,
    )


def held_out_accuracy(
    coordinates_PK: FloatArray, preferred_P: IntArray, person_P: IntArray, known: int = 4
) -> dict[str, float | None]:
    """How often the answers of people who were not fitted are foretold from `known` of their own.

    For "told_nine_tenths" nine tenths of the answers are known. None where nobody has more answers
    than are known.
    """
    right: dict[str, list[float]] = {"told_4": [], "told_nine_tenths": []}
    for person in np.unique(person_P):
        rows = np.flatnonzero(person_P == person)
        for name, count in (("told_4", known), ("told_nine_tenths", len(rows) * 9 // 10)):
            if count >= len(rows):
                continue
            mean_K = belief(coordinates_PK[rows[:count]], preferred_P[rows[:count]]).mean_K
            said = coordinates_PK[rows[count:]] @ mean_K > 0
            right[name].append(float((said == (preferred_P[rows[count:]] == 1)).mean()))
    return {name: float(np.mean(values)) if values else None for name, values in right.items()}
