"""Stage A: pixels to latents and back, as published, or with a decoder of full convolutions."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel
from torch import Tensor, nn

from ppd_model.presets import Preset


def build_stage_a(preset: Preset) -> PaellaVQModel:
    """The preset's Stage A without loaded weights."""
    kind = FullConvVQModel if "decoder_channels" in preset.stage_a else PaellaVQModel
    return kind(**preset.stage_a)


class FullConvVQModel(PaellaVQModel):  # type: ignore[misc]
    """Paella's encoder and code book, and a decoder of full 3 x 3 convolutions.

    Paella's decoder paints the four pixels of each cell with a 1 x 1 convolution: at few channels
    neighbouring cells do not meet, and the cells are seen as a grid. Here a convolution over the
    finished pixels comes last, and both enlargements start as plain repetition (ICNR; Aitken et
    al., 2017). On a CPU a full convolution of this width also takes less time than Paella's block.

    ``decoder_channels`` are those at a quarter, a half and the whole of the picture's side,
    ``decoder_blocks`` the residual blocks at a quarter and a half.
    """

    def __init__(
        self,
        *,
        decoder_channels: tuple[int, int, int],
        decoder_blocks: tuple[int, int],
        **paella: Any,
    ) -> None:
        super().__init__(**paella)
        quarter, half, whole = decoder_channels
        self.up_blocks = nn.Sequential(
            _conv(self.config.latent_channels, quarter),
            *(_Residual(quarter) for _ in range(decoder_blocks[0])),
            *_enlarged(quarter, half),
            *(_Residual(half) for _ in range(decoder_blocks[1])),
        )
        self.out_block = nn.Sequential(
            *_enlarged(half, whole), nn.LeakyReLU(0.2), _conv(whole, self.config.out_channels)
        )


class _Residual(nn.Module):
    """Two convolutions beside the identity; the second starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = _conv(channels, channels)
        nn.init.zeros_(last.weight)
        self.body = nn.Sequential(
            nn.LeakyReLU(0.2), _conv(channels, channels), nn.LeakyReLU(0.2), last
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        changed_BCHW: Tensor = x_BCHW + self.body(x_BCHW)
        return changed_BCHW


def _enlarged(channels_in: int, channels: int) -> tuple[nn.Module, nn.Module]:
    """Twice the side, from a convolution whose four pixels of a cell start equal."""
    conv = _conv(channels_in, 4 * channels)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(parameter[::4].repeat_interleave(4, dim=0))
    return conv, nn.PixelShuffle(2)


def _conv(channels_in: int, channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, kernel_size=3, padding=1)
