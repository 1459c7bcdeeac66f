"""Stage C of mini: captions to latents, by diffusion, with the text encoder frozen.

The loss tells late whether a caption's subject is followed; the gap in the loss between right and
wrong captions tells early, so it is measured on held-out latents: ``gap_subject`` is how much the
error rises when only the subject of the caption is changed, in percent.

``python -m training.pretrain.stage_c --config training/configs/mini_stage_c.yaml``
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ppd_model.nets.diffusion import add_noise, ddpm_step, p2_weight, row_noise, sampling_times
from ppd_model.nets.stage_c import StageCUNet, build_unet
from ppd_model.nets.text_encoder import TextFeatures
from ppd_model.presets import get_preset
from training.jobs.command_line import run_job
from training.pretrain.compressor import Previewer
from training.pretrain.latents import stage_c_latents
from training.pretrain.pictures import HELD_OUT, draw_indices, tile
from training.pretrain.text_encoder import trained_text_encoder
from training.pretrain.training_loop import LoopConfig, load_averaged, run
from training.world.captions import canonical, caption
from training.world.scene import CONTENTS, SETTINGS, SUBJECTS
from training.world.store import PictureStore

CAPTIONS_PER_CONTENT = 60


class StageCConfig(LoopConfig):
    """The loop's options, and Stage C's own."""

    run: Path
    """Folder with all parts of the model: world, compressor, text_encoder, ...."""
    caption_dropout: float = 0.1
    """Share of captions left out, for guidance."""
    guidance: float = 4.0
    """Of the pictures in the grids."""


class StageCJob:
    """The noise of noised latents, given a caption (paper, Eq. 1), with the P2 weight."""

    def __init__(self, config: StageCConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.preset = get_preset("mini")
        store = PictureStore(config.run / "world")
        self.content = torch.from_numpy(store.content)
        self.latents = torch.from_numpy(stage_c_latents(config.run))
        self.encoder = trained_text_encoder(config.run / "text_encoder")
        self.features = self._caption_features()
        self.no_text = self.encoder.encode([""])
        self.previewer = load_averaged(config.run / "compressor", "previewer", Previewer())
        self.stage_c = new_stage_c()
        self.modules: Mapping[str, nn.Module] = {"stage_c": self.stage_c}

    def loss(self, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """P2-weighted squared error of the noise; a tenth of the captions is empty."""
        indices = draw_indices(len(self.latents) - HELD_OUT, self.config.batch, generator)
        captions = torch.randint(CAPTIONS_PER_CONTENT, (len(indices),), generator=generator)
        text = self._text(self.content[indices], captions)
        dropped = torch.rand(len(indices), generator=generator) < self.config.caption_dropout
        text.tokens_BSD[dropped] = self.no_text.tokens_BSD
        text.pooled_B1D[dropped] = self.no_text.pooled_B1D
        x0_BCHW = self.latents[indices].float()
        t_B = torch.rand(len(indices), generator=generator) * 0.999 + 0.001
        noise_BCHW = torch.randn(x0_BCHW.shape, generator=generator)
        error_B = self._error(self.stage_c, x0_BCHW, noise_BCHW, t_B, text)
        weight_B = p2_weight(t_B)
        return (weight_B * error_B).mean() / weight_B.mean(), {"mse": error_B.mean().item()}

    def measure(self, averaged: Mapping[str, Any]) -> dict[str, float]:
        """Held-out error, and how much it rises with a wrong subject or a wrong setting."""
        generator = torch.Generator().manual_seed(3)
        rows = 384
        x0_BCHW, content = self.latents[-rows:].float(), self.content[-rows:]
        noise_BCHW = torch.randn(x0_BCHW.shape, generator=generator)
        t_B = torch.linspace(0.3, 0.95, rows)
        captions = torch.randint(CAPTIONS_PER_CONTENT, (rows,), generator=generator)
        subject, setting = content // len(SETTINGS), content % len(SETTINGS)
        asked = {
            "right": content,
            "subject": (subject + 3) % len(SUBJECTS) * len(SETTINGS) + setting,
            "setting": subject * len(SETTINGS) + (setting + 2) % len(SETTINGS),
        }
        with torch.no_grad():
            error = {
                name: self._error(
                    averaged["stage_c"], x0_BCHW, noise_BCHW, t_B, self._text(wanted, captions)
                )
                .mean()
                .item()
                for name, wanted in asked.items()
            }
        return {
            "held_out_mse": error["right"],
            "gap_subject": 100 * (error["subject"] / error["right"] - 1),
            "gap_setting": 100 * (error["setting"] / error["right"] - 1),
        }

    def grid(self, averaged: Mapping[str, Any]) -> NDArray[np.uint8]:
        """One picture for every subject and setting, through the previewer."""
        prompts = [
            canonical(subject, setting)
            for subject in range(len(SUBJECTS))
            for setting in range(len(SETTINGS))
        ]
        with torch.no_grad():
            latent = self.sample(averaged["stage_c"], self.encoder.encode(prompts))
            preview = self.previewer(latent)
        return tile(list(preview.split(len(SETTINGS))))

    def sample(self, stage_c: StageCUNet, text: TextFeatures, steps: int = 20) -> Tensor:
        """Latents for the texts with the configured guidance; row i starts from seed i."""
        rows = len(text.tokens_BSD)
        generators = [torch.Generator().manual_seed(i) for i in range(rows)]
        shape_CHW = (self.preset.latent_channels, *self.preset.latent_hw(128, 128))
        x_BCHW = torch.stack([row_noise(shape_CHW, g) for g in generators])
        both = TextFeatures(
            torch.cat([text.tokens_BSD, self.no_text.tokens_BSD.expand(rows, -1, -1)]),
            torch.cat([text.pooled_B1D, self.no_text.pooled_B1D.expand(rows, -1, -1)]),
        )
        for t, t_next in pairwise(sampling_times(steps).unbind()):
            eps = predict(stage_c, x_BCHW.repeat(2, 1, 1, 1), t.expand(2 * rows), both)
            with_text, without = eps.chunk(2)
            x_BCHW = ddpm_step(
                x_BCHW,
                without + self.config.guidance * (with_text - without),
                t.expand(rows),
                t_next.expand(rows),
                torch.stack([row_noise(shape_CHW, g) for g in generators]),
                self.preset.stage_c_x0_clamp,
            )
        return x_BCHW

    def _error(
        self,
        stage_c: StageCUNet,
        x0_BCHW: Tensor,
        noise_BCHW: Tensor,
        t_B: Tensor,
        text: TextFeatures,
    ) -> Tensor:
        eps_BCHW = predict(stage_c, add_noise(x0_BCHW, noise_BCHW, t_B), t_B, text)
        return (eps_BCHW - noise_BCHW).square().mean(dim=(1, 2, 3))

    def _caption_features(self) -> TextFeatures:
        rng = np.random.default_rng(self.config.seed)
        parts = [
            self.encoder.encode(
                [
                    caption(content // len(SETTINGS), content % len(SETTINGS), rng)
                    for _ in range(CAPTIONS_PER_CONTENT)
                ]
            )
            for content in range(CONTENTS)
        ]
        return TextFeatures(
            torch.cat([part.tokens_BSD for part in parts]),
            torch.cat([part.pooled_B1D for part in parts]),
        )

    def _text(self, content_B: Tensor, caption_B: Tensor) -> TextFeatures:
        rows = content_B * CAPTIONS_PER_CONTENT + caption_B
        return TextFeatures(self.features.tokens_BSD[rows], self.features.pooled_B1D[rows])


def predict(stage_c: StageCUNet, xt_BCHW: Tensor, t_B: Tensor, text: TextFeatures) -> Tensor:
    """The base model's noise. The picture condition is zeros: None would drop the words."""
    width = stage_c.config.clip_image_in_channels
    eps_BCHW: Tensor = stage_c(
        sample=xt_BCHW,
        timestep_ratio=t_B,
        clip_text_pooled=text.pooled_B1D,
        clip_text=text.tokens_BSD,
        clip_img=text.pooled_B1D.new_zeros(len(t_B), 1, width),
        return_dict=False,
    )[0]
    return eps_BCHW


def new_stage_c() -> StageCUNet:
    """mini's Stage C, untrained; its output starts at zero."""
    unet = build_unet(get_preset("mini"))
    nn.init.zeros_(unet.clf[1].weight)
    nn.init.zeros_(unet.clf[1].bias)
    return unet


def trained_stage_c(out: Path) -> StageCUNet:
    return load_averaged(out, "stage_c", new_stage_c())


def main(config: StageCConfig, resume: bool) -> None:
    run(StageCJob(config), config, resume)


if __name__ == "__main__":
    run_job(main, StageCConfig, __doc__)
