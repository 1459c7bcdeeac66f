"""Stage C latents -> pixels: Stage B draws the Stage A latents, Stage A decodes them.

Legend: B rows, C channels, H W sides of latents or pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from diffusers.models.unets.unet_stable_cascade import StableCascadeUNet
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel
from torch import Tensor, nn

from ppd_model.files.artifact import load_artifact, load_strict
from ppd_model.files.safetensor_files import WeightFiles, assign_weights, refuse_meta
from ppd_model.nets.diffusion import (
    predict_x0,
    row_noise,
    sampler_dtype,
    sampling_times,
    to_epsilon,
)
from ppd_model.nets.solver import NOISY, steps_of
from ppd_model.nets.stage_a import build_stage_a
from ppd_model.nets.unet import CascadeUNet
from ppd_model.presets import Preset


class Decoder(nn.Module):
    """Stage B and Stage A, both frozen; each computes in the dtype of its own weights."""

    def __init__(self, preset: Preset, stage_b: StableCascadeUNet, stage_a: PaellaVQModel) -> None:
        super().__init__()
        if preset.stage_b_guidance > 1:
            raise ValueError(
                f"Stage B guidance of {preset.stage_b_guidance}: Stage B is sampled without"
            )
        self.preset = preset
        self.stage_b = stage_b.requires_grad_(False).eval()
        self.stage_a = stage_a.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(
        self,
        latent_BCHW: Tensor,
        pooled_B1D: Tensor,
        generators: Sequence[torch.Generator],
        before_step: Callable[[], None] | None = None,
    ) -> Tensor:
        """Pixels in [0, 1], B x 3 x H x W. Row r draws its noise from ``generators[r]`` only.

        ``before_step`` is called before each Stage B step; what it raises ends the decoding.
        """
        stage_a_BCHW = self.draw_stage_a_latents(latent_BCHW, pooled_B1D, generators, before_step)
        return self.to_pixels(stage_a_BCHW)

    def draw_stage_a_latents(
        self,
        latent_BCHW: Tensor,
        pooled_B1D: Tensor,
        generators: Sequence[torch.Generator],
        before_step: Callable[[], None] | None = None,
    ) -> Tensor:
        """Stage B's sampling loop, conditioned on the Stage C latents (and the pooled text)."""
        rows, device = len(latent_BCHW), latent_BCHW.device
        shape_CHW = (self.preset.stage_b["in_channels"], *self.stage_a_hw(latent_BCHW))
        text_B1D = pooled_B1D if self.preset.stage_b_uses_text else torch.zeros_like(pooled_B1D)
        dtype = self.stage_b.dtype
        text_B1D, effnet_BCHW = text_B1D.to(dtype), latent_BCHW.to(dtype)

        def noise() -> Tensor:
            drawn = [
                row_noise(shape_CHW, generator, sampler_dtype(dtype)) for generator in generators
            ]
            return torch.stack(drawn).to(device)

        x_BCHW = noise()
        before_BCHW = torch.zeros_like(x_BCHW)
        clamp, solver = self.preset.stage_b_x0_clamp, self.preset.stage_b_solver
        times = sampling_times(self.preset.stage_b_steps, x_BCHW.dtype)
        for step in steps_of(solver, times.tolist()):
            if before_step is not None:
                before_step()
            t_B = x_BCHW.new_full((rows,), step.t)
            (output_BCHW,) = self.stage_b(
                sample=x_BCHW.to(dtype),
                timestep_ratio=t_B,
                clip_text_pooled=text_B1D,
                effnet=effnet_BCHW,
                return_dict=False,
            )
            output_BCHW = output_BCHW.to(x_BCHW.dtype)
            eps_BCHW = to_epsilon(self.preset.stage_b_target, output_BCHW, x_BCHW, t_B)
            x0_BCHW = predict_x0(x_BCHW, eps_BCHW, t_B)
            if clamp is not None:
                x0_BCHW = x0_BCHW.clamp(-clamp, clamp)
            x_BCHW = step.keep * x_BCHW + step.clean * x0_BCHW + step.before * before_BCHW
            if solver in NOISY:
                x_BCHW = x_BCHW + step.fresh * noise()
            before_BCHW = x0_BCHW
        return x_BCHW

    def to_pixels(self, stage_a_BCHW: Tensor) -> Tensor:
        """Stage A's decoder, clamped to [0, 1]; the latents are not quantised again."""
        scaled_BCHW = self.stage_a.config.scale_factor * stage_a_BCHW.to(self.stage_a.dtype)
        pixels_BCHW: Tensor = self.stage_a.decode(scaled_BCHW).sample
        return pixels_BCHW.clamp(0, 1)

    def stage_a_hw(self, latent_BCHW: Tensor) -> tuple[int, int]:
        """Sides of the Stage A latents: 24 x 24 Stage C latents give 256 x 256."""
        scale = self.preset.px_per_latent / self.preset.stage_a_downscale
        height, width = latent_BCHW.shape[-2:]
        return int(height * scale), int(width * scale)


def build_decoder(preset: Preset) -> Decoder:
    """Stage B and Stage A without loaded weights."""
    return Decoder(preset, CascadeUNet(**preset.stage_b), build_stage_a(preset))


def load_decoder(
    preset: Preset,
    stage_b: Path,
    stage_a: Path,
    *,
    stage_b_sha256: str | None = None,
    stage_a_sha256: str | None = None,
) -> Decoder:
    """Both stages from their files. Raises ArtifactError for files of anything else."""
    decoder = build_decoder(preset)
    for kind, path, sha256, module in (
        ("stage_b", stage_b, stage_b_sha256, decoder.stage_b),
        ("stage_a", stage_a, stage_a_sha256, decoder.stage_a),
    ):
        tensors, _ = load_artifact(path, kind=kind, sha256=sha256, base_model=preset.base_model)
        load_strict(module, tensors)
    return decoder


def load_published_decoder(
    preset: Preset,
    stage_b: WeightFiles,
    stage_a: WeightFiles,
    *,
    dtype: torch.dtype,
    device: str = "cpu",
) -> Decoder:
    """Stage B as ``dtype`` and Stage A, which is small and paints the pixels, as float32.

    Raises ArtifactError for keys or shapes that are not the preset's.
    """
    with torch.device("meta"):
        decoder = build_decoder(preset)
    assign_weights(decoder.stage_b, stage_b, dtype=dtype, device=device)
    assign_weights(decoder.stage_a, stage_a, dtype=torch.float32, device=device)
    refuse_meta(decoder)
    return decoder
