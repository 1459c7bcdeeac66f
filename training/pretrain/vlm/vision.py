"""mini's vision tower, trained alone: measured looks and content from single pictures.

Every patch's final state learns to tell the looks of the whole picture, so that whatever image
token the language model attends to, it finds them there.

Legend: B pictures, S patches, D features, L looks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.siglip import SiglipVisionModel

from ppd_model.user_encoder import small_image_processor
from training.world.scene import LOOKS, SETTINGS, SUBJECTS
from training.world.store import PictureStore


class VisionHeads(nn.Module):
    """Linear read-outs of the tower's last layer; used for training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.looks = nn.Linear(width, len(LOOKS))
        self.patch_looks = nn.Linear(width, len(LOOKS))
        self.subject = nn.Linear(width, len(SUBJECTS))
        self.setting = nn.Linear(width, len(SETTINGS))


@dataclass(frozen=True)
class VisionLoss:
    """The loss to descend, and its parts for the log."""

    total: Tensor
    looks_mse_L: Tensor
    subject_accuracy: float
    setting_accuracy: float


def tower_features(tower: SiglipVisionModel, pixels_BCHW: Tensor) -> Tensor:
    """The features that LLaVA-OneVision reads: the last layer's states, B x S x D."""
    output = tower(pixels_BCHW, output_hidden_states=True)
    features_BSD: Tensor = output.hidden_states[-1]
    return features_BSD


def vision_loss(
    tower: SiglipVisionModel,
    heads: VisionHeads,
    pixels_BCHW: Tensor,
    looks_BL: Tensor,
    subject_B: Tensor,
    setting_B: Tensor,
) -> VisionLoss:
    """Squared errors of the looks, from the mean patch and from each; cross-entropy of content."""
    features_BSD = heads.norm(tower_features(tower, pixels_BCHW))
    mean_BD = features_BSD.mean(dim=1)
    looks_mse_L = (heads.looks(mean_BD) - looks_BL).square().mean(dim=0)
    patch_mse = (heads.patch_looks(features_BSD) - looks_BL[:, None]).square().mean()
    subject_logits, setting_logits = heads.subject(mean_BD), heads.setting(mean_BD)
    content = functional.cross_entropy(subject_logits, subject_B) + functional.cross_entropy(
        setting_logits, setting_B
    )
    return VisionLoss(
        total=looks_mse_L.mean() + 0.5 * patch_mse + 0.1 * content,
        looks_mse_L=looks_mse_L.detach(),
        subject_accuracy=float((subject_logits.argmax(1) == subject_B).float().mean()),
        setting_accuracy=float((setting_logits.argmax(1) == setting_B).float().mean()),
    )


def small_pictures(store: PictureStore, side_px: int) -> NDArray[np.uint8]:
    """Every picture of the store as the image processor resizes it, N x side x side x 3."""
    if side_px == store.pictures.shape[1]:
        return store.pictures
    processor = small_image_processor(side_px)
    resized = np.zeros((len(store), side_px, side_px, 3), dtype=np.uint8)
    for start in range(0, len(store), 256):
        part = [list(store.pictures[start : start + 256])]
        pixels = processor(part, return_tensors="np")["pixel_values"][:, 0]
        restored = np.rint((pixels.transpose(0, 2, 3, 1) + 1) * 127.5)
        resized[start : start + 256] = restored.clip(0, 255).astype(np.uint8)
    return resized


def to_pixels(images_BHW3: NDArray[np.uint8]) -> Tensor:
    """uint8 pictures as the tower's input, B x 3 x H x W in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images_BHW3)).permute(0, 3, 1, 2) / 127.5 - 1


def vision_batch(
    store: PictureStore,
    pictures: NDArray[np.uint8],
    indices: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels (half of them mirrored, all slightly noisy), looks, subjects and settings."""
    ordered = np.sort(indices)
    pixels_BCHW = to_pixels(pictures[ordered])
    mirrored = torch.from_numpy(rng.random(len(ordered)) < 0.5)
    pixels_BCHW = torch.where(mirrored[:, None, None, None], pixels_BCHW.flip(-1), pixels_BCHW)
    noise = rng.standard_normal(pixels_BCHW.shape, dtype=np.float32)
    return (
        pixels_BCHW + 0.01 * torch.from_numpy(noise),
        torch.from_numpy(store.looks[ordered]).clamp(-3, 3),
        torch.from_numpy(store.subject[ordered]),
        torch.from_numpy(store.setting[ordered]),
    )


@torch.inference_mode()
def all_features(
    tower: SiglipVisionModel, pictures: NDArray[np.uint8], batch: int = 128
) -> Iterator[NDArray[np.float16]]:
    """Features of all pictures in order, in batches of S x D."""
    for start in range(0, len(pictures), batch):
        features = tower_features(tower, to_pixels(pictures[start : start + batch]))
        yield features.numpy().astype(np.float16)
