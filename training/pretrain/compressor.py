"""The semantic compressor of mini: 128 x 128 pictures to 16 x 8 x 8 Stage C latents.

Stable Cascade trains its compressor together with Stage B. Here a plain decoder stands in for
Stage B while the compressor learns (it is kept as the previewer), and small heads ask the latents
for what the picture is of and how it looks, so that Stage C finds both easily.

``python -m training.pretrain.compressor --config training/configs/mini_compressor.yaml``
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from ppd_model.nets.compressor import SmallCompressor
from ppd_model.presets import get_preset
from training.jobs.command_line import run_job
from training.pretrain.pictures import HELD_OUT, draw_indices, psnr_db, tile, to_tensor
from training.pretrain.training_loop import LoopConfig, run, save_averaged
from training.world.scene import LOOKS, SETTINGS, SUBJECTS
from training.world.store import PictureStore


class CompressorConfig(LoopConfig):
    """The loop's options, and the compressor's own."""

    world: Path
    """Pictures that training.world.store painted."""
    latent_noise: float = 0.1
    """Noise on the latents while training."""
    semantic_weight: float = 0.02
    """Of the loss that keeps content and looks in the latents."""


class Previewer(nn.Module):
    """Latents to a plain, slightly soft picture in one pass: 16 x 8 x 8 to 3 x 128 x 128."""

    def __init__(self, latent_channels: int = 16) -> None:
        super().__init__()

        def stage(channels_in: int, channels: int) -> list[nn.Module]:
            return [
                nn.Conv2d(channels_in, channels, kernel_size=3, padding=1),
                nn.BatchNorm2d(channels),
                nn.GELU(),
            ]

        self.body = nn.Sequential(
            *stage(latent_channels, 192),
            *stage(192, 192),
            nn.Upsample(scale_factor=2),
            *stage(192, 96),
            *stage(96, 96),
            nn.Upsample(scale_factor=2),
            *stage(96, 48),
            nn.Conv2d(48, 3 * 16, kernel_size=3, padding=1),
            nn.PixelShuffle(4),
        )

    def forward(self, latent_BCHW: Tensor) -> Tensor:
        """Pictures about [0, 1], B x 3 x 128 x 128."""
        image: Tensor = self.body(latent_BCHW)
        return image


class _Reader(nn.Module):
    """What the latents say: logits of subject and setting, and the looks."""

    def __init__(self, latent_channels: int = 16) -> None:
        super().__init__()
        outputs = len(SUBJECTS) + len(SETTINGS) + len(LOOKS)
        self.net = nn.Sequential(
            nn.Conv2d(latent_channels, 64, kernel_size=3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(64 * 16, outputs),
        )

    def forward(self, latent_BCHW: Tensor) -> Tensor:
        said: Tensor = self.net(latent_BCHW)
        return said


class CompressorJob:
    """Reconstruction through noised latents, and what the latents must tell."""

    def __init__(self, config: CompressorConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.store = PictureStore(config.world)
        self.modules: Mapping[str, nn.Module] = {
            "compressor": SmallCompressor(**get_preset("mini").compressor),
            "previewer": Previewer(),
            "reader": _Reader(),
        }

    def loss(self, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """L1 + L2 of the picture and the readers' losses."""
        indices = draw_indices(len(self.store) - HELD_OUT, self.config.batch, generator)
        image = to_tensor(self.store.pictures[indices])
        latent = self.modules["compressor"](image)
        noised = latent + self.config.latent_noise * torch.randn(latent.shape, generator=generator)
        error = self.modules["previewer"](noised) - image
        semantic = self._semantic_loss(self.modules["reader"](noised), indices)
        loss = (
            error.abs().mean() + 4 * error.square().mean() + self.config.semantic_weight * semantic
        )
        return loss, {"mse": error.square().mean().item(), "semantic": semantic.item()}

    def measure(self, averaged: Mapping[str, Any]) -> dict[str, float]:
        """PSNR, subject and setting accuracy and looks' R2 on held-out pictures."""
        part = slice(-480, None)
        image = to_tensor(self.store.pictures[part])
        with torch.no_grad():
            latent = averaged["compressor"](image)
            decoded = averaged["previewer"](latent)
            subject, setting, looks = self._split(averaged["reader"](latent))
        truth = torch.from_numpy(self.store.looks[part])
        return {
            "psnr_db": psnr_db(decoded, image),
            "subject": float((subject.argmax(1).numpy() == self.store.subject[part]).mean()),
            "setting": float((setting.argmax(1).numpy() == self.store.setting[part]).mean()),
            "looks_r2": float(1 - (looks - truth).square().mean() / truth.var()),
            "latent_std": latent.std().item(),
        }

    def recalibrate(self, averaged: Mapping[str, nn.Module], batches: int = 24) -> None:
        """Take the normalisations' statistics anew from the averaged weights.

        Averages of weights and of statistics lag differently; the latents must come out with unit
        variance, which Stage C's clamp and its noise schedule count on.
        """
        compressor, previewer = averaged["compressor"], averaged["previewer"]
        generator = torch.Generator().manual_seed(self.config.seed)

        def pictures() -> Iterator[Tensor]:
            for _ in range(batches):
                indices = draw_indices(len(self.store) - HELD_OUT, 64, generator)
                yield to_tensor(self.store.pictures[indices])

        update_bn(pictures(), compressor)
        update_bn((compressor(picture) for picture in pictures()), previewer)

    def grid(self, averaged: Mapping[str, Any]) -> NDArray[np.uint8]:
        """Held-out pictures above their reconstructions."""
        image = to_tensor(self.store.pictures[-8:])
        with torch.no_grad():
            decoded = averaged["previewer"](averaged["compressor"](image))
        return tile([image, decoded])

    def _semantic_loss(self, said: Tensor, indices: NDArray[np.int64]) -> Tensor:
        subject, setting, looks = self._split(said)
        cross_entropy = nn.functional.cross_entropy
        return (
            cross_entropy(subject, torch.from_numpy(self.store.subject[indices]))
            + cross_entropy(setting, torch.from_numpy(self.store.setting[indices]))
            + nn.functional.mse_loss(looks, torch.from_numpy(self.store.looks[indices]))
        )

    @staticmethod
    def _split(said: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        subject, setting, looks = said.split([len(SUBJECTS), len(SETTINGS), len(LOOKS)], dim=1)
        return subject, setting, looks


def main(config: CompressorConfig, resume: bool) -> None:
    job = CompressorJob(config)
    averaged = run(job, config, resume)
    job.recalibrate(averaged)
    save_averaged(config.out, averaged)


if __name__ == "__main__":
    run_job(main, CompressorConfig, __doc__)
