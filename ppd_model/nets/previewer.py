"""Stage C latents straight to a small picture: what a running job can show at every step.

The layout, and with it the names of all parameters, is that of Stability AI's published previewer
(StableCascade, modules/previewer.py; 512 channels there), so that its file loads strictly.

Legend: B pictures, C H W latent, 8H 8W sides in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ppd_model.files.artifact import ArtifactError, load_artifact, load_strict, verify_manifest
from ppd_model.files.repositories import locate
from ppd_model.presets import Preset

PREVIEWER_FILE = "previewer.safetensors"
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


def build_previewer(preset: Preset) -> Previewer:
    """The preset's previewer without loaded weights."""
    return Previewer(latent_channels=preset.latent_channels, hidden=preset.previewer_hidden)


def find_previewer(preset: Preset, weights_dir: Path) -> Previewer | None:
    """The previewer among the preset's weights: previews can be done without, so None is no fault.

    Raises ArtifactError for a file that is damaged, not the one that was pulled, or of another
    network.
    """
    if not preset.published:
        sha256 = verify_manifest(weights_dir).get(PREVIEWER_FILE)
        if sha256 is None:
            return None
        return load_previewer(preset, weights_dir / PREVIEWER_FILE, sha256=sha256)
    try:
        repository = locate(preset, "previewer", weights_dir, torch.float32)
        path = repository.folder(preset.published["previewer"]) / PREVIEWER_FILE
    except FileNotFoundError:
        return None
    if not path.is_file():
        return None
    repository.sha256(preset.published["previewer"], torch.float32)
    return load_published_previewer(preset, path)


def load_previewer(preset: Preset, path: Path, *, sha256: str | None = None) -> Previewer:
    """The previewer of an artifact. Raises ArtifactError for any other file."""
    tensors, _ = load_artifact(path, kind="previewer", sha256=sha256, base_model=preset.base_model)
    return _with_weights(preset, tensors)


def load_published_previewer(preset: Preset, path: Path) -> Previewer:
    """The previewer as it was published, float32. Raises ArtifactError for any other file."""
    if not path.is_file():
        raise FileNotFoundError(f"no previewer weights at {path}")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ArtifactError(f"{path}: not a readable file: {error}") from error
    return _with_weights(preset, tensors)


def _with_weights(preset: Preset, tensors: Mapping[str, Tensor]) -> Previewer:
    previewer = build_previewer(preset)
    load_strict(previewer, tensors)
    return previewer.requires_grad_(False).eval()


def _normed(layer: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    return [layer, nn.GELU(), nn.BatchNorm2d(layer.out_channels)]
