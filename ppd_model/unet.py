"""Stable Cascade's U-Net, whose noise times stay float32 in a network of another precision."""

from __future__ import annotations

from diffusers.models.unets.unet_stable_cascade import StableCascadeUNet
from torch import Tensor


class CascadeUNet(StableCascadeUNet):  # type: ignore[misc]
    """``StableCascadeUNet`` that takes float32 times, whatever its weights' dtype.

    Same weights under the same names. The stock model would compute the time's embedding in the
    dtype of the time, or have the time in bfloat16, which moves the signal-to-noise ratio by up to
    11 per cent.
    """

    def get_timestep_ratio_embedding(
        self, timestep_ratio: Tensor, max_positions: int = 10000
    ) -> Tensor:
        """The stock embedding of float32 times, in the dtype of the weights."""
        embedding_BD: Tensor = super().get_timestep_ratio_embedding(timestep_ratio, max_positions)
        return embedding_BD.to(self.dtype)
