"""Stage A of mini: pixels to 4 x 32 x 32 latents and back, on random 64 x 64 crops.

``python -m training.pretrain.stage_a --config training/configs/mini_stage_a.yaml``
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ppd_model.nets.stage_a import build_stage_a
from ppd_model.presets import get_preset
from training.jobs.command_line import run_job
from training.pretrain.pictures import HELD_OUT, draw_indices, psnr_db, tile, to_tensor
from training.pretrain.training_loop import LoopConfig, run
from training.world.store import PictureStore


class StageAConfig(LoopConfig):
    """The loop's options, and Stage A's own."""

    world: Path
    """Pictures that training.world.store painted."""
    crop_px: int = 64
    """Side of the crops that are trained on."""
    latent_noise: float = 0.1
    """Noise on the latents while training."""
    quantized_share: float = 0.25
    """Share of latents that are quantized."""


class StageAJob:
    """Reconstruction by L1 and L2, some of it through the code book, latents slightly noised.

    The published pipeline decodes Stage B's latents without the code book, so most steps train
    that path; the noise makes the decoder forgive what Stage B gets slightly wrong.
    """

    def __init__(self, config: StageAConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.store = PictureStore(config.world)
        self.vq = build_stage_a(get_preset("mini"))
        with torch.no_grad():
            for block in self.vq.modules():
                if hasattr(block, "gammas"):
                    block.gammas[[2, 5]] = 0.5
            nn.init.normal_(self.vq.vquantizer.embedding.weight)
        self.modules: Mapping[str, nn.Module] = {"stage_a": self.vq}

    def loss(self, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Reconstruction, and on some steps the code book's own loss."""
        image = self._crops(generator)
        latent = self.vq.encode(image).latents
        book_loss = latent.new_zeros(())
        if torch.rand((), generator=generator) < self.config.quantized_share:
            latent, book_loss, _ = self.vq.vquantizer(latent)
        noise = torch.randn(latent.shape, generator=generator)
        decoded = self.vq.decode(latent + self.config.latent_noise * noise).sample
        error = decoded - image
        loss = error.abs().mean() + 4 * error.square().mean() + book_loss
        return loss, {"mse": error.square().mean().item(), "book": book_loss.item()}

    def measure(self, averaged: Mapping[str, Any]) -> dict[str, float]:
        """PSNR on held-out pictures, and the latents' spread."""
        image = to_tensor(self.store.pictures[-64:])
        with torch.no_grad():
            latent = averaged["stage_a"].encode(image).latents
            decoded = averaged["stage_a"].decode(latent).sample
        return {"psnr_db": psnr_db(decoded, image), "latent_std": latent.std().item()}

    def grid(self, averaged: Mapping[str, Any]) -> NDArray[np.uint8]:
        """Held-out pictures above their reconstructions."""
        image = to_tensor(self.store.pictures[-8:])
        with torch.no_grad():
            decoded = averaged["stage_a"](image).sample
        return tile([image, decoded])

    def _crops(self, generator: torch.Generator) -> Tensor:
        indices = draw_indices(len(self.store) - HELD_OUT, self.config.batch, generator)
        side = self.config.crop_px
        corner = torch.randint(128 - side + 1, (2,), generator=generator).tolist()
        rows, columns = slice(corner[0], corner[0] + side), slice(corner[1], corner[1] + side)
        return to_tensor(self.store.pictures[indices, rows, columns])


def main(config: StageAConfig, resume: bool) -> None:
    run(StageAJob(config), config, resume)


if __name__ == "__main__":
    run_job(main, StageAConfig, __doc__)
