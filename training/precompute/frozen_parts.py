"""The frozen parts that training.precompute runs, by preset: compressor and text encoder.

For mini they are two of this project's own files; for a published preset they come from the folder
that ``ppd models pull`` fills, or from the hub.

Legend: B pictures, C H W latent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ppd_model.files.artifact import sha256_of
from ppd_model.files.repositories import locate
from ppd_model.nets import compressor
from ppd_model.nets.text_encoder import TextEncoder, load_published_text_encoder, load_text_encoder
from ppd_model.presets import Preset
from ppd_model.published import generator_dtype

COMPRESSOR = "compressor.safetensors"
TEXT_ENCODER = "text_encoder.safetensors"
TEXT_TOKENIZER = "text_tokenizer.json"
EFFICIENTNET_STRIDE = 32


@dataclass(frozen=True)
class Compressor:
    """A frozen compressor, the side of the square pictures it reads, and its files' sha256."""

    module: nn.Module
    side_px: int
    sha256: str

    @torch.inference_mode()
    def latents(self, images_BHW3: NDArray[np.uint8], device: torch.device) -> Tensor:
        """Latents BCHW in float16, on the CPU, of pictures that `square` has made fit."""
        image_B3HW = torch.tensor(images_BHW3, device=device).permute(0, 3, 1, 2).float() / 255
        latent_BCHW: Tensor = self.module(image_B3HW)
        return latent_BCHW.half().cpu()


def load_compressor(preset: Preset, weights_dir: Path | None, device: torch.device) -> Compressor:
    """The preset's compressor. `weights_dir` may be None for a published preset: the hub.

    Raises FileNotFoundError, and ArtifactError for a file that is not this preset's.
    """
    module = compressor.load_compressor(preset, weights_dir, device=str(device))
    if preset.published:
        dtype = torch.float32
        repository = locate(preset, "compressor", weights_dir, dtype)
        digest = repository.sha256(preset.published["compressor"], dtype)
    else:
        digest = sha256_of(own_folder(preset, weights_dir) / COMPRESSOR)
    return Compressor(module, compressor_side_px(preset), digest)


def compressor_side_px(preset: Preset) -> int:
    """The side of a square picture whose latents have the size that the preset generates.

    768 for Stable Cascade: its compressor divides a side by 32, its decoder multiplies by 42.67.
    """
    widths = preset.compressor.get("widths")
    stride = EFFICIENTNET_STRIDE if widths is None else int(2 ** len(widths))
    return stride * math.ceil(preset.default_side_px / preset.px_per_latent)


def load_text(
    preset: Preset, weights_dir: Path | None, device: torch.device
) -> tuple[TextEncoder, str]:
    """The preset's text encoder and the sha256 of its weights; errors as `load_compressor`."""
    if not preset.published:
        folder = own_folder(preset, weights_dir)
        encoder = load_text_encoder(preset, folder / TEXT_ENCODER, folder / TEXT_TOKENIZER)
        encoder.model.to(device)
        return encoder, sha256_of(folder / TEXT_ENCODER)
    dtype = generator_dtype(None, str(device))
    part = preset.published["text_encoder"]
    repository = locate(preset, "text_encoder", weights_dir, dtype)
    tokenizer = locate(preset, "tokenizer", weights_dir, dtype)
    digest = repository.sha256(part, dtype)
    encoder = load_published_text_encoder(
        preset,
        repository.config(part),
        repository.weights(part, dtype),
        tokenizer.folder(preset.published["tokenizer"]),
        dtype=dtype,
        device=str(device),
    )
    return encoder, digest


def own_folder(preset: Preset, weights_dir: Path | None) -> Path:
    """The folder of weights that this project made. Raises ValueError for None."""
    if weights_dir is None:
        raise ValueError(f"weights_dir is needed: {preset.name} is not on the hub")
    return weights_dir


def square(image: Image.Image, side_px: int) -> NDArray[np.uint8]:
    """The middle square of a picture, `side_px` wide, H x W x 3; unchanged if it is that already.

    The shorter side is scaled to `side_px`, with antialiasing; what is over is cut off evenly.
    """
    if image.size == (side_px, side_px):
        return np.asarray(image)
    width, height = image.size
    edge = min(width, height)
    left, top = (width - edge) / 2, (height - edge) / 2
    box = (left, top, left + edge, top + edge)
    scaled = image.resize((side_px, side_px), Image.Resampling.BICUBIC, box=box)
    pixels: NDArray[np.uint8] = np.asarray(scaled)
    return pixels
