"""The classifier: which person's embedding is it? Trained on most sets of each, tested on others.

Legend: U people, E sets, B rows of a batch, F features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.classify_users.classify_config import ClassifyConfig
from training.classify_users.peoples_sets import FloatArray, IntArray, PeoplesSets


@dataclass(frozen=True)
class Parts:
    """Which sets train, stop the training, and test."""

    train_E: IntArray
    validation_E: IntArray
    test_E: IntArray


class ResidualClassifier(nn.Module):
    """Standardised features to scores of the people: `layers` residual layers of one width."""

    mean_F: Tensor
    std_F: Tensor

    def __init__(self, features_EF: Tensor, people: int, width: int, layers: int, dropout: float):
        super().__init__()
        self.register_buffer("mean_F", features_EF.mean(0))
        self.register_buffer("std_F", features_EF.std(0) + 1e-6)
        self.first = nn.Linear(features_EF.shape[1], width)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout)
            )
            for _ in range(layers)
        )
        self.last = nn.Sequential(
            nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, people)
        )

    def forward(self, features_BF: Tensor) -> Tensor:
        """B x U scores."""
        x_BW = self.first((features_BF - self.mean_F) / self.std_F)
        for layer in self.layers:
            x_BW = x_BW + layer(x_BW)
        scores_BU: Tensor = self.last(x_BW)
        return scores_BU


def split(
    person_E: IntArray, validation: int, test: int, folds: int, seed: int
) -> tuple[Parts, ...]:
    """Each person's sets in a random order: the first `test` of them test the first fold, the next
    the second, and so on; in each fold the `validation` ones that follow, round the end, stop the
    training, and the others train. No set tests two folds.

    Raises ValueError for someone without a set to train on, or to test a fold.
    """
    rng = np.random.default_rng([seed, 17])
    rows_U = [rng.permutation(np.flatnonzero(person_E == person)) for person in np.unique(person_E)]
    for person, rows in enumerate(rows_U):
        if len(rows) <= validation + test:
            raise ValueError(
                f"person {person} has {len(rows)} sets: {validation} validate, {test} test, "
                "none is left to train on"
            )
        if len(rows) <= (folds - 1) * test:
            raise ValueError(
                f"person {person} has {len(rows)} sets: too few for {folds} folds with {test} to "
                f"test each"
            )
    return tuple(_fold(rows_U, fold * test, validation, test) for fold in range(folds))


def _fold(rows_U: Sequence[IntArray], first: int, validation: int, test: int) -> Parts:
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for rows in rows_U:
        tested = rows[first : first + test]
        others = np.concatenate([rows[first + test :], rows[:first]])
        for part, own in zip(
            parts, (others[validation:], others[:validation], tested), strict=True
        ):
            part.extend(own.tolist())
    return Parts(*(np.array(sorted(rows), dtype=np.int64) for rows in parts))


def classify_all(
    features_EF: Tensor,
    sets: PeoplesSets,
    folds: Sequence[Parts],
    config: ClassifyConfig,
    answers: int = 1,
) -> FloatArray:
    """Train a classifier for each fold; scores of all test sets, fold by fold, E x U."""
    return np.concatenate([classify(features_EF, sets, parts, config, answers) for parts in folds])


def classify(
    features_EF: Tensor, sets: PeoplesSets, parts: Parts, config: ClassifyConfig, answers: int = 1
) -> FloatArray:
    """Train; scores of the test sets, E x U.

    answers: features that are made of so many equal blocks have their blocks shuffled while
    training, since the order of the answers means nothing.
    """
    generator = torch.Generator().manual_seed(config.seed)
    person_E = torch.from_numpy(sets.person_E)
    train_E, validation_E = (torch.from_numpy(rows) for rows in (parts.train_E, parts.validation_E))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = ResidualClassifier(
            features_EF[train_E], sets.people, config.width, config.layers, config.dropout
        )
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        best, waited = math.inf, 0
        kept = {name: value.clone() for name, value in model.state_dict().items()}
        for epoch in range(config.epochs):
            model.train()
            order = train_E[torch.randperm(len(train_E), generator=generator)]
            for rows in order.split(config.batch):
                shown = shuffle_blocks(features_EF[rows], answers, generator)
                optimiser.zero_grad()
                functional.cross_entropy(model(shown), person_E[rows]).backward()
                optimiser.step()
            loss = validation_loss(model, features_EF[validation_E], person_E[validation_E])
            if loss < best:
                best, waited = loss, 0
                kept = {name: value.clone() for name, value in model.state_dict().items()}
            else:
                waited += 1
                if waited == config.patience:
                    break
            if epoch % 10 == 0:
                print(f"epoch {epoch} validation loss {loss:.3f} best {best:.3f}", flush=True)
    model.load_state_dict(kept)
    model.eval()
    with torch.no_grad():
        scores: FloatArray = model(features_EF[torch.from_numpy(parts.test_E)]).numpy()
    return scores


@torch.no_grad()
def validation_loss(model: ResidualClassifier, features_EF: Tensor, person_E: Tensor) -> float:
    """Cross-entropy of sets that do not train."""
    model.eval()
    return float(functional.cross_entropy(model(features_EF), person_E))


def shuffle_blocks(features_BF: Tensor, blocks: int, generator: torch.Generator) -> Tensor:
    """Each row's equal blocks in a random order."""
    if blocks == 1:
        return features_BF
    parts = features_BF.unflatten(1, (blocks, -1))
    order = torch.rand(len(parts), blocks, generator=generator).argsort(1)
    return torch.take_along_dim(parts, order[..., None], 1).flatten(1)
