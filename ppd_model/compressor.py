"""The semantic compressor: pictures to Stage C latents. Used offline, by training only.

Stable Cascade compresses with an EfficientNetV2-S whose last feature map goes through a 1x1
convolution without bias and a BatchNorm without affine parameters; its raw output is the latent,
with no scaling. ``mini`` keeps that head on a small convolutional body.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class SmallCompressor(nn.Module):
    """Strided convolutions, then Stable Cascade's latent head.

    ``widths`` gives the channels after each stride-2 stage, so the latent side is the picture's
    side divided by ``2 ** len(widths)``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, widths: Sequence[int], latent_channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        stages: list[nn.Module] = []
        channels = 3
        for width in widths:
            stages += [
                nn.Conv2d(channels, width, kernel_size=3, stride=2, padding=1),
                nn.BatchNorm2d(width),
                nn.GELU(),
                nn.Conv2d(width, width, kernel_size=3, padding=1),
                nn.BatchNorm2d(width),
                nn.GELU(),
            ]
            channels = width
        self.body = nn.Sequential(*stages)
        self.mapper = nn.Sequential(
            nn.Conv2d(channels, latent_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(latent_channels, affine=False),
        )

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """Pictures in [0, 1] to latents BCHW, about zero mean and unit variance per channel."""
        latent_BCHW: Tensor = self.mapper(self.body((image_B3HW - self.mean) / self.std))
        return latent_BCHW
