"""Stage B and Stage A, against diffusers' own decoder pipeline on the same weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DDPMWuerstchenScheduler, StableCascadeDecoderPipeline

from ppd_model.nets.decoder import Decoder, build_decoder
from ppd_model.nets.diffusion import epsilon_from_velocity
from ppd_model.pipeline import Pipeline
from ppd_model.presets import Preset, get_preset

ROUNDING = 1e-10
"""In float64: 2^-53 of a few units, some hundred times over, is 1e-14; the step from t = 1 divides
what is left of it by sqrt(alpha-bar(1)) = 0.01; a factor of 100 is for other processors."""
PROMPTS = ["a red boat", "the sea at night"]


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.fixture(name="latent_BCHW")
def two_latents() -> torch.Tensor:
    return torch.randn(2, 16, 8, 8)


@pytest.fixture(name="pooled_B1D")
def two_texts() -> torch.Tensor:
    return torch.randn(2, 1, 24)


def test_pixels_equal_the_stock_pipelines(
    tiny: Preset, latent_BCHW: torch.Tensor, wide_scheduler: DDPMWuerstchenScheduler
) -> None:
    like_stock = replace(
        tiny, stage_b_target="epsilon", stage_b_x0_clamp=None, stage_b_uses_text=True
    )
    pipeline = Pipeline.random(like_stock, " ".join(PROMPTS).split(), dtype=torch.float64)
    latent_BCHW = latent_BCHW.double()
    stock = StableCascadeDecoderPipeline(
        decoder=pipeline.decoder.stage_b,
        tokenizer=pipeline.text_encoder.tokenizer,
        text_encoder=pipeline.text_encoder.model,
        scheduler=wide_scheduler,
        vqgan=pipeline.decoder.stage_a,
        latent_dim_scale=4.0,
    )
    stock.set_progress_bar_config(disable=True)
    expected = stock(
        image_embeddings=latent_BCHW,
        prompt=PROMPTS,
        num_inference_steps=like_stock.stage_b_steps,
        guidance_scale=0.0,
        generator=generators(1, 2),
        output_type="pt",
    ).images
    pooled_B1D = pipeline.text_encoder.encode(PROMPTS).pooled_B1D
    pixels = pipeline.decoder(latent_BCHW, pooled_B1D, generators(1, 2))
    assert pixels.shape == (2, 3, 128, 128)
    assert pixels.std() > 0.01
    torch.testing.assert_close(pixels, expected, rtol=0, atol=ROUNDING)


def test_a_row_is_decoded_alike_alone_and_in_company(
    tiny: Preset, latent_BCHW: torch.Tensor, pooled_B1D: torch.Tensor
) -> None:
    decoder, latent_BCHW = build_decoder(tiny).double(), latent_BCHW.double()
    together = decoder.draw_stage_a_latents(latent_BCHW, pooled_B1D, generators(1, 2))
    alone = decoder.draw_stage_a_latents(latent_BCHW[1:], pooled_B1D[1:], generators(2))
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=ROUNDING)


def test_text_matters_only_where_the_preset_says_so(
    tiny: Preset, latent_BCHW: torch.Tensor
) -> None:
    torch.manual_seed(5)
    without = build_decoder(replace(tiny, stage_b_uses_text=False))
    with_text = Decoder(replace(tiny, stage_b_uses_text=True), without.stage_b, without.stage_a)
    one, other = torch.randn(2, 2, 1, 24).unbind()

    def draw(decoder: Decoder, pooled_B1D: torch.Tensor) -> torch.Tensor:
        return decoder.draw_stage_a_latents(latent_BCHW, pooled_B1D, generators(1, 2))

    assert torch.equal(draw(without, one), draw(without, other))
    assert not torch.equal(draw(with_text, one), draw(with_text, other))


def test_a_velocity_target_is_sampled_as_the_noise_it_implies(
    tiny: Preset,
    latent_BCHW: torch.Tensor,
    pooled_B1D: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    latent_BCHW = latent_BCHW.double()
    velocity = build_decoder(replace(tiny, stage_b_target="velocity")).double()
    epsilon = Decoder(
        replace(tiny, stage_b_target="epsilon"),
        build_decoder(tiny).double().stage_b,
        velocity.stage_a,
    )

    def implied_noise(**inputs: torch.Tensor) -> tuple[torch.Tensor]:
        (v,) = velocity.stage_b(**inputs)
        return (epsilon_from_velocity(v, inputs["sample"], inputs["timestep_ratio"]),)

    monkeypatch.setattr(epsilon.stage_b, "forward", implied_noise)
    torch.testing.assert_close(
        velocity.draw_stage_a_latents(latent_BCHW, pooled_B1D, generators(1, 2)),
        epsilon.draw_stage_a_latents(latent_BCHW, pooled_B1D, generators(1, 2)),
        rtol=0,
        atol=ROUNDING,
    )


def test_stage_a_latents_are_a_quarter_of_the_picture(tiny: Preset) -> None:
    assert build_decoder(tiny).stage_a_hw(torch.zeros(1, 16, 8, 8)) == (32, 32)
    with torch.device("meta"):
        published = build_decoder(get_preset("stable-cascade"))
        assert published.stage_a_hw(torch.zeros(1, 16, 24, 18)) == (256, 192)


def test_what_is_raised_before_a_step_ends_the_decoding(
    tiny: Preset, latent_BCHW: torch.Tensor
) -> None:
    steps = 0

    def stop_at_the_second() -> None:
        nonlocal steps
        steps += 1
        if steps == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_decoder(tiny)(
            latent_BCHW, torch.zeros(2, 1, 24), generators(1, 2), stop_at_the_second
        )
    assert steps == 2


def test_guidance_of_stage_b_is_refused_rather_than_ignored(tiny: Preset) -> None:
    with pytest.raises(ValueError, match=r"guidance of 1\.5"):
        build_decoder(replace(tiny, stage_b_guidance=1.5))
