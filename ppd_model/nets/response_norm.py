"""The base's global response normalisation, computed faster on the CPU.

Each residual block of Stages B and C holds one. The stock module asks for a norm over the picture's
rows and columns, which on the CPU walks memory against its order: a quarter of a training step of
`mini`. Here the same number comes from one pass in memory's order, and gradient to the input from
its own formula. Where the stock module is as good (other devices, other dtypes, weights that
train) it is the stock module.

Legend: B rows, H W picture sides, N = H W, K channels.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.unets.unet_stable_cascade import GlobalResponseNorm
from torch import Tensor, nn

FAST_DTYPES = (torch.float32, torch.float64)
EPS = 1e-6
TINY = 1e-30
"""Stands for a channel's squared norm of 0: what it divides is 0 too, so nothing comes of it."""


class FastResponseNorm(GlobalResponseNorm):  # type: ignore[misc]
    """`gamma x share + beta + x`, `share` each channel's norm over the channels' mean norm."""

    def forward(self, x_BHWK: Tensor) -> Tensor:
        """What the stock module gives, to rounding."""
        trains = self.gamma.requires_grad or self.beta.requires_grad
        if trains or x_BHWK.device.type != "cpu" or x_BHWK.dtype not in FAST_DTYPES:
            stock_BHWK: Tensor = super().forward(x_BHWK)
            return stock_BHWK
        out_BNK: Tensor = _ResponseNorm.apply(  # type: ignore[no-untyped-call]
            x_BHWK.flatten(1, 2), self.gamma[0], self.beta[0]
        )
        return out_BNK.view_as(x_BHWK)


class _ResponseNorm(torch.autograd.Function):
    """With n_k = |x_k| and m = mean n + eps: y = x (1 + gamma n / m) + beta."""

    @staticmethod
    def forward(ctx: Any, x_BNK: Tensor, gamma_11K: Tensor, beta_11K: Tensor) -> Tensor:
        norm_B1K = (x_BNK * x_BNK).sum(1, keepdim=True).clamp_min(TINY).sqrt()
        mean_B11 = norm_B1K.mean(-1, keepdim=True) + EPS
        scale_B1K = 1 + gamma_11K * norm_B1K / mean_B11
        ctx.save_for_backward(x_BNK, gamma_11K, norm_B1K, mean_B11, scale_B1K)
        return torch.addcmul(beta_11K, x_BNK, scale_B1K)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        """dL/dx = g scale + x / n * dL/dn, with dL/dn_k = a_k / m - sum(a n) / (K m^2)."""
        (grad_BNK,) = grad_outputs
        x_BNK, gamma_11K, norm_B1K, mean_B11, scale_B1K = ctx.saved_tensors
        to_share_B1K = (grad_BNK * x_BNK).sum(1, keepdim=True) * gamma_11K
        shared_B11 = (to_share_B1K * norm_B1K).mean(-1, keepdim=True) / mean_B11.square()
        to_norm_B1K = to_share_B1K / mean_B11 - shared_B11
        return torch.addcmul(grad_BNK * scale_B1K, x_BNK, to_norm_B1K / norm_B1K), None, None


def use_fast_response_norm(base: nn.Module) -> None:
    """Let every such module of `base` compute this way; its weights and their names stay."""
    for module in base.modules():
        if type(module) is GlobalResponseNorm:
            module.__class__ = FastResponseNorm
