"""PIPE's way: everybody is a combination of K base users, with weights by logistic regression.

PIPE (Ryu et al., 2026; read from its abstract) has a user's reward as a linear combination of K
base user types and learns the weights on the user's pairs by logistic regression; the weights are
what an IP-Adapter reads. Here a base user is a linear reward of picture features; base users and
known people's weights are learned together from known people's answers, and a new person's weights
on their four. The adapter makes its tokens of the weights by one matrix without a bias: they are
the sum of K sets of tokens, one for each base user, each times its weight (and then normalised).

Legend: E sets of 4 answers, U people, F features, R reduced features, K base users.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from training.rivals.answers import Answers, FloatArray

BASE_USERS, REDUCED = 16, 24
RIDGE = 0.5
"""On the squares of weights: a standard normal prior."""
STEPS, LR = 400, 0.05


@dataclass(frozen=True)
class BaseUsers:
    """reward_FK: what each base user likes, in features."""

    reward_FK: FloatArray

    @classmethod
    def fit(cls, known: Answers) -> BaseUsers:
        """Base users and known people's weights, by their answers' likelihood together."""
        width = known.delta_E4F.shape[-1]
        delta_PF = known.delta_E4F.reshape(-1, width).astype(np.float64)
        value_F, vector_FF = np.linalg.eigh(delta_PF.T @ delta_PF / len(delta_PF))
        whiten_FR = vector_FF[:, -REDUCED:] / np.sqrt(np.maximum(value_F[-REDUCED:], 1e-12))
        delta_PR = torch.from_numpy(known.liked_minus_disliked().reshape(-1, width) @ whiten_FR)
        person_P = torch.from_numpy(np.repeat(known.person_E, known.preferred_E4.shape[1]))
        generator = torch.Generator().manual_seed(0)

        def start(*shape: int) -> Tensor:
            drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
            return (0.1 * drawn).requires_grad_()

        weight_UK = start(int(person_P.max()) + 1, BASE_USERS)
        reward_RK = start(delta_PR.shape[1], BASE_USERS)

        def loss() -> Tensor:
            margin_P = ((delta_PR @ reward_RK) * weight_UK[person_P]).sum(1)
            prior = RIDGE * (weight_UK.square().sum() + reward_RK.square().sum())
            return softplus(-margin_P).sum() + prior

        descend([weight_UK, reward_RK], loss)
        return cls(whiten_FR @ reward_RK.detach().numpy())

    def read(self, answers: Answers) -> FloatArray:
        """The weights of each set, E x K."""
        delta_E4K = torch.from_numpy(answers.liked_minus_disliked() @ self.reward_FK)
        weight_EK = torch.zeros(len(delta_E4K), BASE_USERS, dtype=torch.float64, requires_grad=True)

        def loss() -> Tensor:
            margin_E4 = (delta_E4K * weight_EK[:, None]).sum(-1)
            return softplus(-margin_E4).sum() + RIDGE * weight_EK.square().sum()

        descend([weight_EK], loss)
        return weight_EK.detach().numpy()


def descend(parameters: Sequence[Tensor], loss: Callable[[], Tensor]) -> None:
    """Adam, for as many steps as these small, smooth losses need to move no more."""
    optimizer = torch.optim.Adam(parameters, lr=LR)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
