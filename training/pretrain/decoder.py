"""Stages B and A of mini, finished together: Stage C latents to crisp pictures.

Trained alone, Stage B draws about the mean of what the Stage C latents leave open, which decodes
softly. Here it and Stage A's decoder learn together to paint what the world's pictures look like:
near the picture pixel by pixel, as sharp region by region, and such that a discriminator of
patches, who knows the Stage C latents too, does not tell it from painted ones (Isola et al., 2017;
its features are compared as well, Wang et al., 2018). Stage A's encoder stays, and Stage B stays
near its latents.

``python -m training.pretrain.decoder --config training/configs/mini_decoder.yaml``
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import (
    avg_pool2d,
    interpolate,
    l1_loss,
    leaky_relu,
    mse_loss,
    pad,
    pixel_unshuffle,
)

from ppd_model.nets.decoder import Decoder
from ppd_model.presets import get_preset
from training.jobs.command_line import run_job
from training.pretrain.crispness import crispness
from training.pretrain.latents import stage_a_latents, stage_c_latents, trained_stage_a
from training.pretrain.pictures import HELD_OUT, draw_indices, psnr_db, tile, to_pictures, to_tensor
from training.pretrain.stage_b import trained_stage_b
from training.pretrain.training_loop import LoopConfig, run
from training.world.scene import SIDE_PX
from training.world.store import PictureStore

MEASURED = 48


class DecoderConfig(LoopConfig):
    """The loop's options, and those of both stages."""

    run: Path
    """Folder with all parts of the model: world, stage_a, compressor, stage_b, ...."""
    drawn_share: float = 0.85
    """Share of pictures whose latents Stage B draws; the others' are the encoder's, noised."""
    latent_noise: float = 0.1
    """Noise on the encoder's latents."""
    stage_c_noise: float = 0.15
    """Noise on the Stage C latents that Stage B draws from."""
    latents: float = 0.1
    """Weight of the distance between what Stage B draws and the encoder's latents."""
    sharpness: float = 1.0
    """Weight of the distance between sharpnesses, as `sharpness` has them."""
    adversarial: float = 0.8
    """How strongly the discriminator pulls at a decoded picture, over how the painted one does."""
    features: float = 4.0
    """Weight of the distance between the discriminator's features beside its verdicts."""
    crop_px: int = 64
    """Side of the crops that the discriminator sees."""


def sharpness(image_B3HW: Tensor, cell_px: int = 4, cells: int = 8) -> Tensor:
    """How much neighbouring pixels differ (root mean square), in regions of 8 x 8 cells.

    Across and down, and for each place in a cell by itself, so that cells may not show as a grid:
    B x (2 * 16) x H/32 x W/32. Where an edge lies in a region makes no difference, as it does pixel
    by pixel, where a soft edge is the safest.
    """
    padded_B3HW = pad(image_B3HW, (0, 1, 0, 1), mode="replicate")
    across_B1HW = padded_B3HW.diff(dim=3)[:, :, :-1].square().mean(1, keepdim=True)
    down_B1HW = padded_B3HW.diff(dim=2)[:, :, :, :-1].square().mean(1, keepdim=True)
    places_BCHW = pixel_unshuffle(torch.cat([across_B1HW, down_B1HW], 1), cell_px)
    return (avg_pool2d(places_BCHW, cells) + 1e-5).sqrt()


class Discriminator(nn.Module):
    """Painted (1) or decoded (0), of patches of 28 pixels and of 60 with their Stage C latents."""

    def __init__(self, latent_channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(3, 16, kernel_size=3, padding=1),
                nn.Conv2d(16, 32, kernel_size=4, stride=2, padding=1),
                nn.Conv2d(32, 64, kernel_size=4, stride=2, padding=1),
                nn.Conv2d(64, 64, kernel_size=3, padding=1),
                nn.Conv2d(64, 64, kernel_size=4, stride=2, padding=1),
                nn.Conv2d(64 + latent_channels, 96, kernel_size=3, padding=1),
            ]
        )
        self.near = nn.Conv2d(64, 1, kernel_size=3, padding=1)
        self.far = nn.Conv2d(96, 1, kernel_size=3, padding=1)

    def forward(self, image_B3HW: Tensor, latent_BCHW: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Verdicts on the near and the far, and every layer's features."""
        features: list[Tensor] = []
        x_BCHW = 2 * image_B3HW - 1
        for layer in self.layers:
            if layer is self.layers[-1]:
                known_BCHW = interpolate(latent_BCHW, size=x_BCHW.shape[2:])
                x_BCHW = torch.cat([x_BCHW, known_BCHW], 1)
            x_BCHW = leaky_relu(layer(x_BCHW), 0.2)
            features.append(x_BCHW)
        return [self.near(features[3]), self.far(features[5])], features


class DecoderJob:
    """Both stages and the discriminator, which learn in the same step from losses of their own."""

    def __init__(self, config: DecoderConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.preset = get_preset("mini")
        self.store = PictureStore(config.run / "world")
        self.stage_c_latents = torch.from_numpy(stage_c_latents(config.run))
        self.stage_a_latents = torch.from_numpy(stage_a_latents(config.run))
        self.decoder = Decoder(
            self.preset,
            trained_stage_b(config.run / "stage_b"),
            trained_stage_a(config.run / "stage_a").to(memory_format=torch.channels_last),
        )
        self.discriminator = Discriminator(self.preset.latent_channels)
        self.modules: Mapping[str, nn.Module] = {
            "stage_a": self.decoder.stage_a,
            "stage_b": self.decoder.stage_b,
            "discriminator": self.discriminator,
        }
        for part in (
            self.decoder.stage_a.up_blocks,
            self.decoder.stage_a.out_block,
            self.decoder.stage_b,
        ):
            part.requires_grad_(True)

    def loss(self, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The stages' loss and the discriminator's: neither's gradient reaches the other."""
        indices = draw_indices(len(self.store) - HELD_OUT, self.config.batch, generator)
        image_B3HW = to_tensor(self.store.pictures[indices])
        encoded_BCHW = self.stage_a_latents[indices].float()
        latent_BCHW = self._latents(indices, encoded_BCHW, generator)
        decoded_B3HW = self._to_pixels(self.decoder.stage_a, latent_BCHW)
        window = self._window(generator)
        fooled, features, told_apart = self._players(
            _cut(image_B3HW, window),
            _cut(decoded_B3HW, window),
            _cut(self.stage_c_latents[indices].float(), window),
        )
        pixels = l1_loss(decoded_B3HW, image_B3HW)
        said = fooled + self.config.features * features
        pull = _pull(said, decoded_B3HW, as_strong_as=pixels)
        parts = {
            "pixels": pixels,
            "latents": self.config.latents * mse_loss(latent_BCHW, encoded_BCHW),
            "sharpness": self.config.sharpness
            * l1_loss(sharpness(decoded_B3HW), sharpness(image_B3HW)),
            "told_apart": told_apart,
        }
        loss = torch.stack(list(parts.values())).sum() + self.config.adversarial * pull
        parts |= {"fooled": fooled, "features": features}
        return loss, {name: part.item() for name, part in parts.items()}

    def measure(self, averaged: Mapping[str, Any]) -> dict[str, float]:
        """PSNR of held-out pictures' decodings, and crispness in ratios to the pictures'."""
        pictures = self.store.pictures[-MEASURED:]
        decoded = self._decode(averaged)
        ratio = crispness(to_pictures(decoded)).over(crispness(pictures))
        return {"psnr_db": psnr_db(decoded, to_tensor(pictures))} | asdict(ratio)

    def grid(self, averaged: Mapping[str, Any]) -> NDArray[np.uint8]:
        """Held-out pictures above their decodings."""
        image = to_tensor(self.store.pictures[-MEASURED:])
        decoded = self._decode(averaged)
        return tile([image[:8], decoded[:8], image[8:16], decoded[8:16]])

    def _players(
        self, image_B3HW: Tensor, decoded_B3HW: Tensor, latent_BCHW: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Least squares and distance of features for the stages; the discriminator's own."""
        painted, of_painted = self.discriminator(image_B3HW, latent_BCHW)
        seen, _ = self.discriminator(decoded_B3HW.detach(), latent_BCHW)
        told_apart = (_squares(painted, 1) + _squares(seen, 0)) / 2
        frozen = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        verdict, of_decoded = functional_call(
            self.discriminator, frozen, (decoded_B3HW, latent_BCHW)
        )
        features = torch.stack(
            [
                l1_loss(ours, theirs.detach())
                for ours, theirs in zip(of_decoded, of_painted, strict=True)
            ]
        )
        return _squares(verdict, 1), features.mean(), told_apart

    def _latents(
        self, indices: NDArray[np.int64], encoded_BCHW: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Some rows drawn by Stage B, the last ones the encoder's."""
        drawn = round(len(indices) * self.config.drawn_share)
        stage_c_BCHW = self.stage_c_latents[indices[:drawn]].float()
        stage_c_BCHW += self.config.stage_c_noise * _like(stage_c_BCHW, generator)
        kept_BCHW = encoded_BCHW[drawn:]
        kept_BCHW = kept_BCHW + self.config.latent_noise * _like(kept_BCHW, generator)
        return torch.cat([self._draw(self.decoder, stage_c_BCHW, [generator] * drawn), kept_BCHW])

    def _window(self, generator: torch.Generator) -> tuple[float, float, float]:
        """Top, left and side of the crop, in sides of the picture; whole Stage C latents."""
        across = self.preset.latent_hw(SIDE_PX, SIDE_PX)[0]
        side = self.config.crop_px * across // SIDE_PX
        top, left = torch.randint(across - side + 1, (2,), generator=generator).tolist()
        return top / across, left / across, side / across

    def _decode(self, averaged: Mapping[str, Any]) -> Tensor:
        generators = [torch.Generator().manual_seed(i) for i in range(MEASURED)]
        decoder = Decoder(self.preset, averaged["stage_b"], averaged["stage_a"])
        latent_BCHW = self._draw(decoder, self.stage_c_latents[-MEASURED:].float(), generators)
        return self._to_pixels(averaged["stage_a"], latent_BCHW)

    def _draw(
        self, decoder: Decoder, stage_c_BCHW: Tensor, generators: list[torch.Generator]
    ) -> Tensor:
        width = self.preset.stage_b["clip_text_pooled_in_channels"]
        no_text_B1D = torch.zeros(len(stage_c_BCHW), 1, width)
        return decoder.draw_stage_a_latents(stage_c_BCHW, no_text_B1D, generators)

    @staticmethod
    def _to_pixels(stage_a: Any, latent_BCHW: Tensor) -> Tensor:
        """As the decoder's, without its clamp, behind which nothing would learn."""
        scaled_BCHW = stage_a.config.scale_factor * latent_BCHW
        pixels_B3HW: Tensor = stage_a.decode(
            scaled_BCHW.contiguous(memory_format=torch.channels_last)
        ).sample
        return pixels_B3HW


def _pull(said: Tensor, decoded: Tensor, *, as_strong_as: Tensor) -> Tensor:
    """0, with the gradient of `said` by `decoded`, scaled to the length of the other's.

    How steep the discriminator is changes tenfold in a training; what it weighs shall not.
    """
    (gradient,) = torch.autograd.grad(said, decoded, retain_graph=True)
    (reference,) = torch.autograd.grad(as_strong_as, decoded, retain_graph=True)
    scaled = gradient * (reference.norm() / gradient.norm().clamp_min(1e-12))
    pull: Tensor = (scaled * (decoded - decoded.detach())).sum()
    return pull


def _squares(verdicts: list[Tensor], expected: float) -> Tensor:
    return torch.stack([(verdict - expected).square().mean() for verdict in verdicts]).mean()


def _cut(x_BCHW: Tensor, window: tuple[float, float, float]) -> Tensor:
    top, left, side = (round(share * x_BCHW.shape[-1]) for share in window)
    return x_BCHW[..., top : top + side, left : left + side]


def _like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator)


def main(config: DecoderConfig, resume: bool) -> None:
    run(DecoderJob(config), config, resume)


if __name__ == "__main__":
    run_job(main, DecoderConfig, __doc__)
