"""omega(lambda_t): how much the denoising error of a picture at a given noise counts (Eq. 1, 6).

"constant" is 1. "p2" is 1 / (1 + SNR). "adaptive" divides by the average error at that noise, so
that every noise level counts alike; it is what Stable Cascade's own training does (its
`AdaptiveLossWeight`): 300 buckets over log SNR in [-10, 10], each with a moving average of its
error that starts at 1, and the weight 1 / average, between 1e-7 and 1e7.

Under "adaptive" errors become relative: a beta that suits "constant" is too strong, by about the
inverse of a typical error, and the reduction no longer matters.

Legend: B pairs or pictures.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ppd_model.nets.diffusion import alpha_bar, p2_weight

OmegaName = Literal["constant", "p2", "adaptive"]
BUCKETS = 300
LOG_SNR_RANGE = (-10.0, 10.0)
DECAY = 0.99
WEIGHT_RANGE = (1e-7, 1e7)


def log_snr(t_B: Tensor) -> Tensor:
    """lambda_t = log(alpha_t ** 2 / sigma_t ** 2) at each time, B."""
    return torch.logit(alpha_bar(t_B))


class Omega:
    """The weight of each time, and for "adaptive" the moving averages behind it.

    Weights stay fixed within a step; `update` moves them once after it, from all pictures of all
    processes, so micro batches and processes make no difference.
    """

    def __init__(self, name: OmegaName) -> None:
        self.name = name
        self.average_error = torch.ones(BUCKETS, dtype=torch.float64)
        self._border = torch.linspace(*LOG_SNR_RANGE, BUCKETS - 1)

    def __call__(self, t_B: Tensor) -> Tensor | None:
        """omega of each time, B float32; None stands for 1."""
        if self.name == "constant":
            return None
        if self.name == "p2":
            return p2_weight(t_B)
        weight_B = (1 / self.average_error[self._bucket(t_B)]).clamp(*WEIGHT_RANGE)
        return weight_B.float().to(t_B.device)

    def update(self, t_B: Tensor, error_B: Tensor) -> None:
        """Move each bucket that was met towards the mean of its errors, by 1 percent.

        Stock code moves a bucket by one of a step's errors, whichever is written last; the mean
        depends on no order. Does nothing for the other weights.
        """
        if self.name != "adaptive":
            return
        bucket_B = self._bucket(t_B)
        count = torch.bincount(bucket_B, minlength=BUCKETS)
        total = torch.bincount(bucket_B, weights=error_B.detach().cpu().double(), minlength=BUCKETS)
        met = count > 0
        mean = total[met] / count[met]
        self.average_error[met] = self.average_error[met] * DECAY + mean * (1 - DECAY)

    def _bucket(self, t_B: Tensor) -> Tensor:
        return torch.searchsorted(self._border, log_snr(t_B.cpu()))
