"""The frozen parts that precompute.py runs, by preset: compressor and text encoder.

Legend: B pictures, C H W latent.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ppd_model.checkpoint import load_artifact, load_strict
from ppd_model.compressor import SmallCompressor
from ppd_model.presets import Preset
from ppd_model.text_encoder import TextEncoder, load_text_encoder

COMPRESSOR = "compressor.safetensors"
TEXT_ENCODER = "text_encoder.safetensors"
TEXT_TOKENIZER = "text_tokenizer.json"


@dataclass(frozen=True)
class Compressor:
    """A frozen compressor and the side of the square pictures it reads."""

    module: nn.Module
    side_px: int
    weights: Path

    @torch.inference_mode()
    def latents(self, images_BHW3: NDArray[np.uint8], device: torch.device) -> Tensor:
        """Latents BCHW in float16, on the CPU, of pictures that `square` has made fit."""
        image_B3HW = torch.from_numpy(images_BHW3).to(device).permute(0, 3, 1, 2).float() / 255
        latent_BCHW: Tensor = self.module(image_B3HW)
        return latent_BCHW.half().cpu()


def load_compressor(preset: Preset, weights_dir: Path, device: torch.device) -> Compressor:
    """The preset's compressor, in eval mode.

    Raises ArtifactError when the file is not one of this base model, ValueError for a preset
    whose compressor is not known here.
    """
    if "widths" not in preset.compressor:
        raise ValueError(f"preset {preset.name!r} has no compressor that can be loaded")
    path = weights_dir / COMPRESSOR
    tensors, _ = load_artifact(path, kind="compressor", base_model=preset.base_model)
    module = SmallCompressor(**preset.compressor)
    load_strict(module, tensors)
    module.eval().requires_grad_(False).to(device)
    latent_side = math.ceil(preset.default_side_px / preset.px_per_latent)
    stride = 2 ** len(preset.compressor["widths"])
    return Compressor(module, side_px=latent_side * stride, weights=path)


def load_text(preset: Preset, weights_dir: Path, device: torch.device) -> TextEncoder:
    """The preset's text encoder. Raises ArtifactError when it is not one of this base model."""
    encoder = load_text_encoder(preset, weights_dir / TEXT_ENCODER, weights_dir / TEXT_TOKENIZER)
    encoder.model.to(device)
    return encoder


def open_picture(jpeg: bytes) -> Image.Image:
    """The picture of encoded bytes, as RGB. Raises ValueError for bytes that are none."""
    try:
        return Image.open(io.BytesIO(jpeg)).convert("RGB")
    except OSError as error:
        raise ValueError(f"{len(jpeg)} bytes that are no picture: {error}") from error


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
