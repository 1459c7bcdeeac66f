"""Which subject and setting a picture shows: a small convolutional net on 64x64 pictures.

Legend: B pictures, H W side in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ppd_model.files.artifact import load_artifact, load_strict

ARTIFACT_KIND = "content-classifier"


class ContentClassifier(nn.Module):
    """Stride-2 convolutions, global average, two linear heads."""

    def __init__(self, widths: Sequence[int], subjects: int, settings: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in widths:
            layers += [
                nn.Conv2d(channels, width, kernel_size=3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels = width
        layers += [
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]
        self.body = nn.Sequential(*layers)
        self.subject = nn.Linear(2 * channels, subjects)
        self.setting = nn.Linear(2 * channels, settings)

    def forward(self, image_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Reduced pictures to subject logits (B x 8) and setting logits (B x 6)."""
        feature_BCHW = self.body(image_B3HW - 0.5)
        pooled = torch.cat([feature_BCHW.mean((2, 3)), feature_BCHW.amax((2, 3))], 1)
        return self.subject(pooled), self.setting(pooled)

    @torch.inference_mode()
    def name(self, images_BHW3: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Subject and setting indices of uint8 pictures."""
        subjects, settings = [], []
        for start in range(0, len(images_BHW3), 64):
            subject, setting = self(to_tensor(images_BHW3[start : start + 64]))
            subjects.append(subject.argmax(1))
            settings.append(setting.argmax(1))
        return torch.cat(subjects).numpy(), torch.cat(settings).numpy()


def load_classifier(path: Path) -> ContentClassifier:
    """A trained classifier in eval mode. Raises ArtifactError when the file is not one."""
    tensors, spec = load_artifact(path, kind=ARTIFACT_KIND)
    model = ContentClassifier(**spec.config)
    load_strict(model, tensors)
    return model.eval()


def to_tensor(images_BHW3: NDArray[np.uint8]) -> Tensor:
    """uint8 pictures of 128x128 to float [0, 1], channels first, reduced to 64x64."""
    image_B3HW = torch.from_numpy(np.ascontiguousarray(images_BHW3)).permute(0, 3, 1, 2)
    return functional.avg_pool2d(image_B3HW.float(), 2) / 255
