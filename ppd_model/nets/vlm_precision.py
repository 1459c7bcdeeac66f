"""The VLM in float64: what transformers computes in float32 whatever the weights' dtype.

Qwen2's normalisation and its rotary positions are such; a reading would then differ between
processors by as much as float32 does. Weights and their names stay.

Legend: B rows, S tokens, D width, F frequencies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm, Qwen2RotaryEmbedding


class WideRMSNorm(Qwen2RMSNorm):  # type: ignore[misc]
    """`Qwen2RMSNorm` in the dtype of what it is given."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        square = hidden_states.square().mean(-1, keepdim=True)
        normed: Tensor = self.weight * (hidden_states * (square + self.variance_epsilon).rsqrt())
        return normed


class WideRotary(Qwen2RotaryEmbedding):  # type: ignore[misc]
    """`Qwen2RotaryEmbedding` of default positions, in the dtype of what it is given."""

    @torch.no_grad()
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of every position's angles, B x S x 2F; the frequencies made anew."""
        count = len(self.inv_freq)
        share_F = torch.arange(count, dtype=x.dtype, device=x.device) / count
        frequency_F = self.config.rope_parameters["rope_theta"] ** -share_F
        angle_BSF = position_ids[..., None].to(x.dtype) * frequency_F
        angle_BSD = torch.cat([angle_BSF, angle_BSF], dim=-1)
        return angle_BSD.cos(), angle_BSD.sin()


def make_wide(vlm: nn.Module) -> None:
    """`vlm` in float64 throughout.

    Raises ValueError for a model whose positions are not Qwen2's default ones.
    """
    vlm.to(torch.float64)
    for module in vlm.modules():
        if type(module) is Qwen2RMSNorm:
            module.__class__ = WideRMSNorm
        elif type(module) is Qwen2RotaryEmbedding:
            if module.rope_type != "default":
                raise ValueError(f"rotary positions of type {module.rope_type!r}, not 'default'")
            module.__class__ = WideRotary
