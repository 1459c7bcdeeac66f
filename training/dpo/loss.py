"""The objectives, pure: preferences (paper, Eq. 3 and 6), supervised fine-tuning (Eq. 1), and on
the same pairs negative-aware fine-tuning (Zheng et al., DiffusionNFT, 2025), MaPO (Hong et al.,
arXiv:2406.06424) and DSPO (Zhu et al., ICLR 2025).

Everything here takes squared errors that somebody else computed and returns numbers; no model, no
configuration, no randomness. Eq. 3 is Eq. 6 with a policy that is told no user. Shapes: B pairs,
C channels, H and W latent rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Reduction = Literal["mean", "sum"]
DIFFUSION_TIMESTEPS = 1000
"""T of Eq. 6. The paper leaves its value open; 1000 is what Diffusion-DPO assumes."""


@dataclass(frozen=True)
class PairErrors:
    """Squared denoising errors of one model on a batch of pairs, one number per pair.

    chosen_B: error on the picture the person preferred; rejected_B: on the other one.
    """

    chosen_B: Tensor
    rejected_B: Tensor

    def to(self, device: torch.device) -> PairErrors:
        """The same on another device, in the dtype that errors have there."""
        dtype = error_dtype(device)
        return PairErrors(self.chosen_B.to(device, dtype), self.rejected_B.to(device, dtype))


@dataclass(frozen=True)
class PairWeights:
    """omega(lambda_t) of both pictures of each pair; equal where the pair shares its time."""

    chosen_B: Tensor
    rejected_B: Tensor


@dataclass(frozen=True)
class SupervisedLoss:
    """The scalar to minimise, and the policy's mean squared error on chosen pictures (detached)."""

    loss: Tensor
    chosen_error: Tensor

    def scalars(self) -> dict[str, Tensor]:
        """Detached, for logs."""
        return {name: value.detach() for name, value in vars(self).items()}


@dataclass(frozen=True)
class PreferenceLoss:
    """The scalar to minimise, and what to watch while it falls (all detached scalars).

    loss: mean over the batch of -log sigmoid(logits), Eq. 6; or `nft_loss`, `dspo_loss`.
    implicit_accuracy: share of pairs whose logits are positive; an exact zero counts one half.
    margin: mean logits.
    chosen_error, rejected_error: the policy's mean squared errors. Their difference falls both
        when chosen pictures get better and when rejected ones get worse; only the two apart
        tell which.
    chosen_gain, rejected_gain: reference error minus policy error (positive: better than base).
    """

    loss: Tensor
    implicit_accuracy: Tensor
    margin: Tensor
    chosen_error: Tensor
    rejected_error: Tensor
    chosen_gain: Tensor
    rejected_gain: Tensor

    def scalars(self) -> dict[str, Tensor]:
        """Detached, for logs."""
        return {name: value.detach() for name, value in vars(self).items()}


@dataclass(frozen=True)
class MarginLoss:
    """As PreferenceLoss, of an objective that knows no reference: there are no gains."""

    loss: Tensor
    implicit_accuracy: Tensor
    margin: Tensor
    chosen_error: Tensor
    rejected_error: Tensor

    def scalars(self) -> dict[str, Tensor]:
        """Detached, for logs."""
        return {name: value.detach() for name, value in vars(self).items()}


def squared_error(target_BCHW: Tensor, predicted_BCHW: Tensor, reduction: Reduction) -> Tensor:
    """Squared error of each row, B numbers of ``error_dtype``.

    "sum" is the squared norm that Eq. 6 writes; "mean" divides it by C*H*W, which is what public
    Diffusion-DPO code computes. They differ by that factor in the beta they need.

    Raises ValueError for another reduction or unequal shapes.
    """
    if target_BCHW.shape != predicted_BCHW.shape:
        raise ValueError(
            f"target has shape {tuple(target_BCHW.shape)}, "
            f"prediction {tuple(predicted_BCHW.shape)}; they must be equal"
        )
    dtype = error_dtype(target_BCHW.device)
    error_BK = (target_BCHW.to(dtype) - predicted_BCHW.to(dtype)).square().flatten(1)
    if reduction == "mean":
        return error_BK.mean(1)
    if reduction == "sum":
        return error_BK.sum(1)
    raise ValueError(f"reduction is {reduction!r}, expected 'mean' or 'sum'")


def error_dtype(device: torch.device) -> torch.dtype:
    """float64 where the device has it: Eq. 6 multiplies small differences of errors by beta * T,
    hundreds to thousands, and in float32 their rounding too."""
    return torch.float32 if device.type == "mps" else torch.float64


def ppd_loss(
    policy: PairErrors,
    reference: PairErrors,
    *,
    beta: float,
    timesteps: int = DIFFUSION_TIMESTEPS,
    omega: PairWeights | None = None,
) -> PreferenceLoss:
    """Eq. 6: the mean over pairs of -log sigmoid(logits), with

    logits = -beta * T * (omega+ * (policy.chosen - reference.chosen)
                          - omega- * (policy.rejected - reference.rejected)).

    policy: errors of the model that sees the user; reference: of the same weights with the
    adapter off (no gradient). omega: None is 1. The paper's pairs share their time, so omega+ =
    omega- stands before the bracket there; with a time each, every error keeps its own weight.

    Raises ValueError unless beta and timesteps are positive.
    """
    if not beta > 0:
        raise ValueError(f"beta is {beta}, expected a positive number")
    if timesteps < 1:
        raise ValueError(f"timesteps is {timesteps}, expected a positive integer")
    chosen_change_B = policy.chosen_B - reference.chosen_B
    rejected_change_B = policy.rejected_B - reference.rejected_B
    if omega is None:
        delta_B = chosen_change_B - rejected_change_B
    else:
        delta_B = omega.chosen_B * chosen_change_B - omega.rejected_B * rejected_change_B
    logits_B = -beta * timesteps * delta_B
    detached_B = logits_B.detach()
    return PreferenceLoss(
        loss=-logsigmoid(logits_B).mean(),
        implicit_accuracy=((torch.sign(detached_B) + 1) / 2).mean(),
        margin=detached_B.mean(),
        chosen_error=policy.chosen_B.detach().mean(),
        rejected_error=policy.rejected_B.detach().mean(),
        chosen_gain=-chosen_change_B.detach().mean(),
        rejected_gain=-rejected_change_B.detach().mean(),
    )


def sft_loss(chosen_B: Tensor, omega_B: Tensor | None = None) -> SupervisedLoss:
    """Eq. 1 on the pictures that people chose: mean of omega * squared error; None is 1."""
    weighted_B = chosen_B if omega_B is None else omega_B * chosen_B
    return SupervisedLoss(loss=weighted_B.mean(), chosen_error=chosen_B.detach().mean())


def nft_loss(chosen_B: Tensor, opposite_B: Tensor, omega: PairWeights | None = None) -> Tensor:
    """Negative-aware fine-tuning (DiffusionNFT) on pairs, with a beta of 1: the mean over pairs of

    (omega+ * chosen + omega- * opposite) / 2.

    chosen_B: the policy's squared errors on chosen pictures; opposite_B: those of its opposite,
    2 * reference - policy, on rejected ones. With r the reference's error (noise minus its
    prediction) and d what the policy adds to the prediction, these are |r+ - d+|^2 and
    |r- + d-|^2: a regression of d on r+ and -r-, which has its minimum where d is their mean. At
    d = 0 its gradient is that of Eq. 6 times a constant. Another beta divides that d by it;
    ``export_strength`` multiplies it, to first order.
    """
    if omega is None:
        return (chosen_B + opposite_B).mean() / 2
    return (omega.chosen_B * chosen_B + omega.rejected_B * opposite_B).mean() / 2


def mapo_loss(
    policy: PairErrors, *, beta: float, snr: float, timesteps: int = DIFFUSION_TIMESTEPS
) -> MarginLoss:
    """MaPO as its authors' code computes it: the mean over pairs of

    chosen - beta * log sigmoid(T * (h(snr * chosen) - h(snr * rejected))), h(x) = x / (exp(x) - 1).

    chosen, rejected: the policy's squared errors. h falls from 1 at no error to 0, so that chosen
    pictures are learned as such and beside it better than rejected ones; there is no reference.
    beta (.1 there) weighs the second part alone; snr is one constant for all times (.5 there).
    """
    margin_B = timesteps * (_odds(snr * policy.chosen_B) - _odds(snr * policy.rejected_B))
    detached_B = margin_B.detach()
    return MarginLoss(
        loss=policy.chosen_B.mean() - beta * logsigmoid(margin_B).mean(),
        implicit_accuracy=((torch.sign(detached_B) + 1) / 2).mean(),
        margin=detached_B.mean(),
        chosen_error=policy.chosen_B.detach().mean(),
        rejected_error=policy.rejected_B.detach().mean(),
    )


def _odds(x_B: Tensor) -> Tensor:
    """x / (exp(x) - 1), without overflow."""
    return x_B * torch.exp(-x_B) / -torch.expm1(-x_B)


def dspo_loss(
    policy: PairErrors,
    reference: PairErrors,
    moved_B: Tensor,
    *,
    beta: float,
    timesteps: int = DIFFUSION_TIMESTEPS,
) -> Tensor:
    """DSPO as its authors' code computes it for Stable Diffusion 1.5: the mean over pairs of

    |(policy - noise) - c * (policy - reference)|^2,  c = 2 * beta * T * sigmoid(-logits),

    on chosen pictures, with policy and reference what they predict there and the logits of Eq. 6.
    Their one beta is 2 * beta * T here, inside the logits and before them; their code for SDXL has
    another loss, which is not this one. moved_B: |policy - reference|^2 on chosen pictures; with it
    the norm follows from squared errors alone.
    """
    delta_B = (policy.chosen_B - reference.chosen_B) - (policy.rejected_B - reference.rejected_B)
    c_B = 2 * beta * timesteps * torch.sigmoid(beta * timesteps * delta_B)
    # Twice <policy - noise, policy - reference>, by the norms of both and of their difference.
    twice_inner_B = policy.chosen_B + moved_B - reference.chosen_B
    return (policy.chosen_B - c_B * twice_inner_B + c_B.square() * moved_B).mean()
