"""Stage B of mini: Stage C latents to Stage A latents, by diffusion.

Its target is the velocity, not the noise: near t = 1 a velocity network says directly what the
conditioning implies (the noise tells nothing of it there), so few samples give a sound picture.

``python -m training.pretrain.stage_b --config training/configs/mini_stage_b.yaml``
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.unet_stable_cascade import StableCascadeUNet
from numpy.typing import NDArray
from torch import Tensor, nn

from ppd_model.nets.decoder import Decoder
from ppd_model.nets.diffusion import add_noise, sampling_times, training_target
from ppd_model.presets import get_preset
from training.jobs.command_line import run_job
from training.pretrain.latents import stage_a_latents, stage_c_latents, trained_stage_a
from training.pretrain.pictures import HELD_OUT, draw_indices, psnr_db, tile, to_tensor
from training.pretrain.training_loop import LoopConfig, load_averaged, run
from training.world.store import PictureStore

MEASURED = 24


class StageBConfig(LoopConfig):
    """The loop's options, and Stage B's own."""

    run: Path
    """Folder with all parts of the model: world, stage_a, compressor, ...."""
    latent_noise: float = 0.15
    """Noise on the Stage C latents while training: generated ones are not exact either."""


class StageBJob:
    """Velocity of noised Stage A latents, given the picture's Stage C latents."""

    def __init__(self, config: StageBConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.preset = get_preset("mini")
        self.store = PictureStore(config.run / "world")
        self.stage_c_latents = torch.from_numpy(stage_c_latents(config.run))
        self.stage_a_latents = torch.from_numpy(stage_a_latents(config.run))
        self.stage_a = trained_stage_a(config.run / "stage_a")
        self.modules: Mapping[str, nn.Module] = {"stage_b": new_stage_b()}

    def loss(self, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Mean squared error of the velocity."""
        indices = draw_indices(len(self.store) - HELD_OUT, self.config.batch, generator)
        x0_BCHW = self.stage_a_latents[indices].float()
        latent_BCHW = self.stage_c_latents[indices].float()
        latent_BCHW += self.config.latent_noise * torch.randn(
            latent_BCHW.shape, generator=generator
        )
        noise_BCHW = torch.randn(x0_BCHW.shape, generator=generator)
        t_B = self._times(len(x0_BCHW), generator)
        output_BCHW = self.modules["stage_b"](
            sample=add_noise(x0_BCHW, noise_BCHW, t_B),
            timestep_ratio=t_B,
            clip_text_pooled=self._no_text(len(t_B)),
            effnet=latent_BCHW,
            return_dict=False,
        )[0]
        target_BCHW = training_target(self.preset.stage_b_target, x0_BCHW, noise_BCHW, t_B)
        error_B = (output_BCHW - target_BCHW).square().mean(dim=(1, 2, 3))
        early = error_B.detach()[t_B > 0.9]
        numbers = {"error_t_above_.9": early.mean().item()} if len(early) else {}
        return error_B.mean(), numbers

    def measure(self, averaged: Mapping[str, Any]) -> dict[str, float]:
        """PSNR of sampled decodings against the pictures and against Stage A's own best."""
        image = to_tensor(self.store.pictures[-MEASURED:])
        decoded = self._decode(averaged["stage_b"])
        with torch.no_grad():
            best = self.stage_a(image).sample
        return {"psnr_db": psnr_db(decoded, image), "stage_a_psnr_db": psnr_db(best, image)}

    def grid(self, averaged: Mapping[str, Any]) -> NDArray[np.uint8]:
        """Held-out pictures above their decodings."""
        image = to_tensor(self.store.pictures[-MEASURED:])
        decoded = self._decode(averaged["stage_b"])
        return tile([image[:8], decoded[:8], image[8:16], decoded[8:16]])

    def _decode(self, stage_b: nn.Module) -> Tensor:
        decoder = Decoder(self.preset, stage_b, self.stage_a)
        generators = [torch.Generator().manual_seed(i) for i in range(MEASURED)]
        latent_BCHW = self.stage_c_latents[-MEASURED:].float()
        pixels: Tensor = decoder(latent_BCHW, self._no_text(MEASURED), generators)
        return pixels

    def _times(self, rows: int, generator: torch.Generator) -> Tensor:
        """Those at which the sampler asks the network, and no others."""
        visited = sampling_times(self.preset.stage_b_steps)[:-1]
        return visited[torch.randint(len(visited), (rows,), generator=generator)]

    def _no_text(self, rows: int) -> Tensor:
        return torch.zeros(rows, 1, self.preset.stage_b["clip_text_pooled_in_channels"])


def new_stage_b() -> StableCascadeUNet:
    """mini's Stage B, untrained; its output starts at zero."""
    stage_b = StableCascadeUNet(**get_preset("mini").stage_b)
    nn.init.zeros_(stage_b.clf[1].weight)
    nn.init.zeros_(stage_b.clf[1].bias)
    return stage_b


def trained_stage_b(out: Path) -> StableCascadeUNet:
    return load_averaged(out, "stage_b", new_stage_b())


def main(config: StageBConfig, resume: bool) -> None:
    run(StageBJob(config), config, resume)


if __name__ == "__main__":
    run_job(main, StageBConfig, __doc__)
