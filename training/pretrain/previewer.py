"""The previewer of mini: Stage C latents to 64 x 64 pictures, without Stages B and A.

``python -m training.pretrain.previewer --config training/configs/mini_previewer.yaml``

What a running job shows is the model's guess of the clean latent, never quite right. So latents are
noised a little: where they say little the preview is smooth.

The running mean and variance of the normalisations are those of earlier weights, and wrong for the
averaged ones: they are measured anew for what is looked at and for what is kept.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate
from torch.optim.swa_utils import update_bn

from ppd_model.nets.previewer import PX_PER_LATENT, Previewer
from ppd_model.presets import get_preset
from training.jobs.command_line import run_job
from training.pretrain.latents import stage_c_latents
from training.pretrain.pictures import HELD_OUT, draw_indices, psnr_db, tile, to_tensor
from training.pretrain.training_loop import LoopConfig, load_averaged, run, save_averaged
from training.world.store import PictureStore


class PreviewerConfig(LoopConfig):
    """The loop's options, and the previewer's own."""

    run: Path
    """Folder with all parts of the model: world, compressor, ...."""
    latent_noise: float = 0.2
    """Noise on the latents while training."""
    norm_batches: int = 100
    """Batches that the norms are measured on afterwards."""


class PreviewerJob:
    """Squared and absolute error against the picture made small."""

    def __init__(self, config: PreviewerConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.store = PictureStore(config.run / "world")
        self.latent_NCHW = stage_c_latents(config.run)
        self.previewer = new_previewer()
        self.modules: Mapping[str, nn.Module] = {"previewer": self.previewer}

    def loss(self, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Reconstruction of pictures that are not held out."""
        latent, image = self.noised(generator)
        error = self.previewer(latent) - image
        loss = error.abs().mean() + 4 * error.square().mean()
        return loss, {"mse": error.square().mean().item()}

    def measure(self, averaged: Mapping[str, Any]) -> dict[str, float]:
        """PSNR on held-out pictures."""
        latent, image = self.pairs(np.arange(len(self.store) - 256, len(self.store)))
        with torch.no_grad():
            return {"psnr_db": psnr_db(self.normalised(averaged["previewer"])(latent), image)}

    def grid(self, averaged: Mapping[str, Any]) -> NDArray[np.uint8]:
        """Held-out pictures made small, above their previews; both twice as large."""
        latent, image = self.pairs(np.arange(len(self.store) - 8, len(self.store)))
        with torch.no_grad():
            preview = self.normalised(averaged["previewer"])(latent)
        return tile([interpolate(row, scale_factor=2) for row in (image, preview)])

    def noised(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A batch that is trained on: `pairs` with noise on the latents."""
        indices = draw_indices(len(self.store) - HELD_OUT, self.config.batch, generator)
        latent, image = self.pairs(indices)
        noise = torch.randn(latent.shape, generator=generator)
        return latent + self.config.latent_noise * noise, image

    def normalised(self, averaged: nn.Module) -> nn.Module:
        """A copy whose normalisations know its own weights, in eval mode."""
        previewer = copy.deepcopy(averaged)
        generator = torch.Generator().manual_seed(self.config.seed)
        batches = (self.noised(generator)[0] for _ in range(self.config.norm_batches))
        update_bn(batches, previewer)
        return previewer.eval()

    def pairs(self, indices_B: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Latents B x C x H x W and pictures B x 3 x 8H x 8W of these places of the store."""
        latent = torch.from_numpy(self.latent_NCHW[indices_B]).float()
        image = to_tensor(self.store.pictures[indices_B])
        return latent, avg_pool2d(image, image.shape[-1] // (PX_PER_LATENT * latent.shape[-1]))


def new_previewer() -> Previewer:
    preset = get_preset("mini")
    return Previewer(latent_channels=preset.latent_channels, hidden=preset.previewer_hidden)


def trained_previewer(out: Path) -> Previewer:
    return load_averaged(out, "previewer", new_previewer())


def main(config: PreviewerConfig, resume: bool) -> None:
    job = PreviewerJob(config)
    averaged = run(job, config, resume)
    save_averaged(config.out, {"previewer": job.normalised(averaged["previewer"])})


if __name__ == "__main__":
    run_job(main, PreviewerConfig, __doc__)
