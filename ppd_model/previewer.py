"""Stage C latents straight to a small picture: what a running job can show at every step.

The layout, and with it the names of all parameters, is that of Stability AI's published previewer
(StableCascade, modules/previewer.py; 512 channels there), so that its file loads strictly.

Legend: B pictures, C H W latent, 8H 8W sides in pixels.
"""

from __future__ import annotations

from torch import Tensor, nn

PX_PER_LATENT = 8
"""Sides of a preview over sides of a latent: 192 pixels for a picture of 1024, 64 for mini's."""


class Previewer(nn.Module):
    """Convolutions that double the sides three times. ``hidden`` channels, halved at each."""

    def __init__(self, *, latent_channels: int = 16, hidden: int = 512) -> None:
        super().__init__()
        if hidden % 8:
            raise ValueError(f"hidden is {hidden}, expected a multiple of 8")
        layers = _normed(nn.Conv2d(latent_channels, hidden, 1))
        layers += _normed(nn.Conv2d(hidden, hidden, 3, padding=1))
        for wide in (hidden, hidden // 2, hidden // 4):
            layers += _normed(nn.ConvTranspose2d(wide, wide // 2, 2, stride=2))
            layers += _normed(nn.Conv2d(wide // 2, wide // 2, 3, padding=1))
        layers.append(nn.Conv2d(hidden // 8, 3, 1))
        self.blocks = nn.Sequential(*layers)

    def forward(self, latent_BCHW: Tensor) -> Tensor:
        """B x 3 x 8H x 8W; colours lie in [0, 1] up to what the network gets wrong: clamp them."""
        images: Tensor = self.blocks(latent_BCHW)
        return images


def _normed(layer: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    return [layer, nn.GELU(), nn.BatchNorm2d(layer.out_channels)]
