"""Batches of painted pictures as tensors, and grids of tensors as pictures."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HELD_OUT = 2_400
"""The last pictures of a store, 50 of each content. No part of the base model trains on them;
people are asked about all pictures, and the content classifier learns from all."""


def to_tensor(pictures_NHW3: NDArray[np.uint8]) -> Tensor:
    """Pictures as float32 in [0, 1], N x 3 x H x W."""
    return torch.from_numpy(np.array(pictures_NHW3)).permute(0, 3, 1, 2).float() / 255


def to_pictures(images_B3HW: Tensor) -> NDArray[np.uint8]:
    """Tensors in [0, 1] as pictures, N x H x W x 3 uint8."""
    array: NDArray[np.uint8] = (
        (images_B3HW.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    )
    return array


def draw_indices(count: int, batch: int, generator: torch.Generator) -> NDArray[np.int64]:
    """``batch`` random indices below ``count``, sorted so that a memory map is read in order."""
    drawn: NDArray[np.int64] = torch.randint(count, (batch,), generator=generator).sort()[0].numpy()
    return drawn


def tile(rows: list[Tensor]) -> NDArray[np.uint8]:
    """Rows of images (each B x 3 x H x W in [0, 1]) as one picture."""
    return np.concatenate([np.concatenate(list(to_pictures(row)), axis=1) for row in rows], axis=0)


def psnr_db(predicted_B3HW: Tensor, image_B3HW: Tensor) -> float:
    """Peak signal-to-noise ratio of images in [0, 1], in dB, the mean over pictures."""
    mse_B = (predicted_B3HW.clamp(0, 1) - image_B3HW).square().mean(dim=(1, 2, 3))
    return float((-10 * mse_B.log10()).mean())
