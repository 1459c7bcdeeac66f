"""EfficientNetV2's feature maps (Tan and Le, 2021), under the names of torchvision's checkpoints.

Stable Cascade's semantic compressor is torchvision's ``efficientnet_v2_s().features`` with a small
head; its published file holds those names. Only inference is wanted here: there is no stochastic
depth, which has no weights and does nothing in ``eval()``.

Legend: B pictures, C channels, H W sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

BATCH_NORM_EPS = 1e-3
STEM_CHANNELS = 24

Stage = tuple[Literal["fused", "squeezed"], int, int, int, int]
"""Block, expansion, stride of the first block, output channels, number of blocks."""


class SqueezeExcitation(nn.Module):
    """Weighs channels by what the whole picture holds."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, kernel_size=1)
        self.fc2 = nn.Conv2d(squeezed, channels, kernel_size=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The same shape; each channel times its weight in [0, 1]."""
        mean_BC11 = x_BCHW.mean(dim=(2, 3), keepdim=True)
        weight_BC11 = self.fc2(nn.functional.silu(self.fc1(mean_BC11))).sigmoid()
        weighted_BCHW: Tensor = x_BCHW * weight_BC11
        return weighted_BCHW


class Block(nn.Module):
    """An inverted residual block; the input is added where the shape stays the same.

    "fused" expands with a 3x3 convolution; "squeezed" with a 1x1 one, then goes through a
    depthwise 3x3 and squeeze and excitation. Both end in a 1x1 projection without activation; a
    fused block of expansion 1 is its 3x3 convolution alone.
    """

    def __init__(
        self,
        kind: Literal["fused", "squeezed"],
        in_channels: int,
        out_channels: int,
        expansion: int,
        stride: int,
    ) -> None:
        super().__init__()
        inner = in_channels * expansion
        if kind == "squeezed":
            layers: list[nn.Module] = [
                convolution(in_channels, inner, kernel=1),
                convolution(inner, inner, kernel=3, stride=stride, groups=inner),
                SqueezeExcitation(inner, max(1, in_channels // 4)),
                convolution(inner, out_channels, kernel=1, activation=False),
            ]
        elif expansion == 1:
            layers = [convolution(in_channels, out_channels, kernel=3, stride=stride)]
        else:
            layers = [
                convolution(in_channels, inner, kernel=3, stride=stride),
                convolution(inner, out_channels, kernel=1, activation=False),
            ]
        self.block = nn.Sequential(*layers)
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Half the side where the stride is 2."""
        changed_BCHW: Tensor = self.block(x_BCHW)
        return x_BCHW + changed_BCHW if self.adds_input else changed_BCHW


def convolution(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    activation: bool = True,
) -> nn.Sequential:
    """Convolution without bias, batch normalisation and, unless it projects, SiLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=groups,
            bias=False,
        ),
        nn.BatchNorm2d(out_channels, eps=BATCH_NORM_EPS),
    ]
    return nn.Sequential(*layers, nn.SiLU()) if activation else nn.Sequential(*layers)


def features(stages: Sequence[Stage], out_channels: int) -> nn.Sequential:
    """Pictures, normalised, to the last feature map: B x out_channels x H/32 x W/32 for V2-S."""
    layers: list[nn.Module] = [convolution(3, STEM_CHANNELS, kernel=3, stride=2)]
    channels = STEM_CHANNELS
    for kind, expansion, stride, width, repeats in stages:
        blocks = []
        for position in range(repeats):
            blocks.append(Block(kind, channels, width, expansion, stride if position == 0 else 1))
            channels = width
        layers.append(nn.Sequential(*blocks))
    layers.append(convolution(channels, out_channels, kernel=1))
    return nn.Sequential(*layers)
