"""The loss of a step, by the run's objective: Eq. 6 or 3, Eq. 1, or one that is not of the paper.

Legend: B pairs."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from training.data.dataset import PairBatch
from training.dpo.dpo_config import DpoConfig, Objective
from training.dpo.loss import (
    MarginLoss,
    PairErrors,
    PairWeights,
    PreferenceLoss,
    SupervisedLoss,
    dspo_loss,
    mapo_loss,
    nft_loss,
    ppd_loss,
    sft_loss,
)
from training.dpo.pair_model import Beside
from training.dpo.randomness import Draws
from training.dpo.time_weight import Omega

BESIDE: dict[Objective, Beside] = {"nft": "opposite", "dspo": "moved"}
"""What an objective reads beside the errors of policy and reference."""


def objective(
    model: torch.nn.Module,
    batch: PairBatch,
    draws: Draws,
    omega: Omega,
    config: DpoConfig,
    known: PairErrors | None = None,
) -> tuple[PreferenceLoss | SupervisedLoss | MarginLoss, Tensor]:
    """The configured loss of one micro batch, and the errors that move an adaptive omega.

    known: the reference's errors, where they need not be computed.

    Those are the reference's on both pictures, B x 2: what makes rejected pictures worse must not
    make them count less. Supervised fine-tuning has no reference and gives the policy's, B x 1;
    nor has MaPO, which has no omega either.
    """
    if config.objective == "sft":
        chosen_B = model(batch, draws, chosen_only=True)
        return sft_loss(chosen_B, omega(draws.t_chosen_B)), chosen_B.detach()[:, None]
    if config.objective == "mapo":
        policy = model(batch, draws, policy_only=True)
        return margin(policy, config), torch.stack(
            [policy.chosen_B.detach(), policy.rejected_B.detach()], dim=1
        )
    beside_B = None
    if config.objective in BESIDE:
        policy, reference, beside_B = model(batch, draws, beside=BESIDE[config.objective])
    else:
        policy, reference = model(batch, draws, known)
    loss = preference(policy, reference, draws, omega, config, beside_B)
    return loss, torch.stack([reference.chosen_B, reference.rejected_B], dim=1)


def margin(policy: PairErrors, config: DpoConfig) -> MarginLoss:
    """MaPO with the run's options."""
    return mapo_loss(policy, beta=config.beta, snr=config.mapo_snr, timesteps=config.timesteps)


def preference(
    policy: PairErrors,
    reference: PairErrors,
    draws: Draws,
    omega: Omega,
    config: DpoConfig,
    beside_B: Tensor | None = None,
) -> PreferenceLoss:
    """Eq. 6 (Eq. 3 where the policy was told no user) with the run's options.

    beside_B: what the objective reads beside the errors; its own loss then takes the place of
    Eq. 6's, and what is watched stays.
    """
    chosen_B, rejected_B = omega(draws.t_chosen_B), omega(draws.t_rejected_B)
    weights = None
    if chosen_B is not None and rejected_B is not None:
        weights = PairWeights(chosen_B, rejected_B)
    found = ppd_loss(policy, reference, beta=config.beta, timesteps=config.timesteps, omega=weights)
    if beside_B is None:
        return found
    if config.objective == "dspo":
        loss = dspo_loss(policy, reference, beside_B, beta=config.beta, timesteps=config.timesteps)
    else:
        loss = nft_loss(policy.chosen_B, beside_B, weights)
    return replace(found, loss=loss)
