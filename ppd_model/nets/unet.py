"""Stable Cascade's U-Net, whose noise times are float32 in a network of less precision."""

from __future__ import annotations

import math

import torch
from diffusers.models.unets.unet_stable_cascade import StableCascadeUNet
from torch import Tensor


class CascadeUNet(StableCascadeUNet):  # type: ignore[misc]
    """``StableCascadeUNet`` that takes float32 times, whatever its weights' dtype, or float64.

    Same weights under the same names. The stock model would compute the time's embedding in the
    dtype of the time, or have the time in bfloat16, which moves the signal-to-noise ratio by up to
    11 per cent; and it would have float32 frequencies for float64 times.
    """

    def get_timestep_ratio_embedding(
        self, timestep_ratio: Tensor, max_positions: int = 10000
    ) -> Tensor:
        """The stock embedding of the times, in the dtype of the weights."""
        if timestep_ratio.dtype == torch.float64:
            width = self.config.timestep_ratio_embedding_dim
            embedding_BD = wide_embedding(timestep_ratio, max_positions, width)
        else:
            embedding_BD = super().get_timestep_ratio_embedding(timestep_ratio, max_positions)
        return embedding_BD.to(self.dtype)


def wide_embedding(t_B: Tensor, max_positions: int, width: int) -> Tensor:
    """The stock embedding, B x ``width`` (even), with everything in the dtype of the times.

    An exponential in float32 differs between processors in its last bit, and the times are
    multiplied by up to ``max_positions``.
    """
    half = width // 2
    rate = math.log(max_positions) / (half - 1)
    frequency_F = (torch.arange(half, dtype=t_B.dtype, device=t_B.device) * -rate).exp()
    angle_BF = (t_B * max_positions)[:, None] * frequency_F
    return torch.cat([angle_BF.sin(), angle_BF.cos()], dim=1)
