"""The loss of a step, by the run's objective: Eq. 6 or 3, Eq. 1, or negative-aware regression.

Legend: B pairs."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from training.data.dataset import PairBatch
from training.dpo.dpo_config import DpoConfig
from training.dpo.loss import (
    PairErrors,
    PairWeights,
    PreferenceLoss,
    SupervisedLoss,
    nft_loss,
    ppd_loss,
    sft_loss,
)
from training.dpo.randomness import Draws
from training.dpo.time_weight import Omega


def objective(
    model: torch.nn.Module,
    batch: PairBatch,
    draws: Draws,
    omega: Omega,
    config: DpoConfig,
    known: PairErrors | None = None,
) -> tuple[PreferenceLoss | SupervisedLoss, Tensor]:
    """The configured loss of one micro batch, and the errors that move an adaptive omega.

    known: the reference's errors, where they need not be computed.

    Those are the reference's on both pictures, B x 2: what makes rejected pictures worse must not
    make them count less. Supervised fine-tuning has no reference and gives the policy's, B x 1.
    """
    if config.objective == "sft":
        chosen_B = model(batch, draws, chosen_only=True)
        return sft_loss(chosen_B, omega(draws.t_chosen_B)), chosen_B.detach()[:, None]
    opposite_B = None
    if config.objective == "nft":
        policy, reference, opposite_B = model(batch, draws, opposite=True)
    else:
        policy, reference = model(batch, draws, known)
    loss = preference(policy, reference, draws, omega, config, opposite_B)
    return loss, torch.stack([reference.chosen_B, reference.rejected_B], dim=1)


def preference(
    policy: PairErrors,
    reference: PairErrors,
    draws: Draws,
    omega: Omega,
    config: DpoConfig,
    opposite_B: Tensor | None = None,
) -> PreferenceLoss:
    """Eq. 6 (Eq. 3 where the policy was told no user) with the run's options.

    opposite_B: the opposite's errors, whose loss then takes the place of Eq. 6's; what is watched
    stays.
    """
    chosen_B, rejected_B = omega(draws.t_chosen_B), omega(draws.t_rejected_B)
    weights = None
    if chosen_B is not None and rejected_B is not None:
        weights = PairWeights(chosen_B, rejected_B)
    found = ppd_loss(policy, reference, beta=config.beta, timesteps=config.timesteps, omega=weights)
    if opposite_B is None:
        return found
    return replace(found, loss=nft_loss(policy.chosen_B, opposite_B, weights))
