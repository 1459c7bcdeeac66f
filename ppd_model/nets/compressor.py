"""The semantic compressor: pictures to Stage C latents. Used offline, by training only.

Stable Cascade compresses with an EfficientNetV2-S whose last feature map goes through a 1x1
convolution without bias and a BatchNorm without affine parameters; its raw output is the latent,
with no scaling: 768 px give 16 x 24 x 24. ``mini`` keeps that head on a small convolutional body.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ppd_model.files.artifact import load_artifact, load_strict
from ppd_model.files.repositories import locate
from ppd_model.files.safetensor_files import assign_weights, refuse_meta
from ppd_model.nets import efficientnet
from ppd_model.nets.efficientnet import Stage
from ppd_model.presets import Preset

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
        self.register_buffer("mean", _per_channel(IMAGENET_MEAN))
        self.register_buffer("std", _per_channel(IMAGENET_STD))
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
        self.mapper = _latent_head(channels, latent_channels)

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """Pictures in [0, 1] to latents BCHW, about zero mean and unit variance per channel."""
        latent_BCHW: Tensor = self.mapper(self.body((image_B3HW - self.mean) / self.std))
        return latent_BCHW


class EfficientNetEncoder(nn.Module):
    """Stable Cascade's compressor: an EfficientNetV2 and the latent head.

    Parameters are named as in the published ``effnet_encoder.safetensors``. ``stages`` is the
    table of ``efficientnet.features``, ``features`` the channels of the last feature map.
    """

    def __init__(self, stages: Sequence[Stage], features: int, latent_channels: int) -> None:
        super().__init__()
        self.backbone = efficientnet.features(stages, features)
        self.mapper = _latent_head(features, latent_channels)

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """Pictures in [0, 1] to latents BCHW, a 32nd of the side: 768 px give 16 x 24 x 24."""
        mean, std = (
            _per_channel(values).to(image_B3HW) for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
        latent_BCHW: Tensor = self.mapper(self.backbone((image_B3HW - mean) / std))
        return latent_BCHW


def build_compressor(preset: Preset) -> SmallCompressor | EfficientNetEncoder:
    """The preset's compressor without loaded weights, in ``eval()``."""
    kind = EfficientNetEncoder if "stages" in preset.compressor else SmallCompressor
    return kind(**preset.compressor).eval()


def load_compressor(
    preset: Preset, weights_dir: Path | None, *, device: str = "cpu"
) -> SmallCompressor | EfficientNetEncoder:
    """The preset's compressor in float32, frozen, from a folder of weights.

    For a published preset the folder is what ``ppd models pull`` fills, or None for the hub.
    Raises FileNotFoundError, and ArtifactError for any other file.
    """
    if preset.published:
        part = preset.published["compressor"]
        repository = locate(preset, "compressor", weights_dir, torch.float32)
        repository.sha256(part, torch.float32)
        weights = repository.weights(part, torch.float32)
        with torch.device("meta"):
            compressor = build_compressor(preset)
        assign_weights(compressor, weights, dtype=torch.float32, device=device)
        refuse_meta(compressor)
    else:
        if weights_dir is None:
            raise ValueError(f"weights_dir is needed for the compressor of {preset.name}")
        tensors, _ = load_artifact(
            weights_dir / "compressor.safetensors", kind="compressor", base_model=preset.base_model
        )
        compressor = build_compressor(preset)
        load_strict(compressor, tensors)
    return compressor.to(device).requires_grad_(False).eval()


def _latent_head(channels: int, latent_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, latent_channels, kernel_size=1, bias=False),
        nn.BatchNorm2d(latent_channels, affine=False),
    )


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)
