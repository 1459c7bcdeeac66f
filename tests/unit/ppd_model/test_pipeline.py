"""The whole path: equal to diffusers' sampler and to itself in any batch; never a black picture."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMWuerstchenScheduler, StableCascadePriorPipeline
from torch import Tensor

from ppd_model.files.artifact import ArtifactError, ArtifactSpec, save_artifact, write_manifest
from ppd_model.nets.adapter import AttentionInput, attention_blocks
from ppd_model.nets.stage_c import adapter_spec, build_adapter
from ppd_model.nets.text_encoder import save_word_tokenizer
from ppd_model.nets.unet import CascadeUNet
from ppd_model.pipeline import Pipeline
from ppd_model.presets import Preset, get_preset
from ppd_model.sampling.requests import Cancelled, NumericalError
from ppd_model.types import ImageRequest

SameBits = Callable[[Tensor, Tensor], bool]


def latents(pipeline: Pipeline, *requests: ImageRequest) -> Tensor:
    generators = [torch.Generator().manual_seed(request.seed) for request in requests]
    return pipeline.sample_latents(requests, generators)


# The sampler


@pytest.mark.parametrize(
    ("guidance_scale", "negative"), [(4.0, ""), (4.0, "quiet hill"), (1.0, "")]
)
def test_latents_equal_those_of_the_stock_prior_pipeline(
    tiny: Preset,
    wide_scheduler: DDPMWuerstchenScheduler,
    guidance_scale: float,
    negative: str,
) -> None:
    pipeline = Pipeline.random(
        replace(tiny, stage_c_x0_clamp=None),
        ["a", "red", "boat", "the", "sea", "at", "night", "quiet", "hill"],
        dtype=torch.float64,
    )
    prior = CascadeUNet(**tiny.stage_c).eval().double()  # stock but for float64 times
    prior.load_state_dict(pipeline.stage_c.unet.state_dict(), strict=True)
    stock = StableCascadePriorPipeline(
        tokenizer=pipeline.text_encoder.tokenizer,
        text_encoder=pipeline.text_encoder.model,
        prior=prior,
        scheduler=wide_scheduler,
        resolution_multiple=16,
    )
    stock.set_progress_bar_config(disable=True)
    prompts = ["a red boat", "the sea at night"]
    expected = stock(
        prompt=prompts,
        negative_prompt=[negative] * 2,
        height=128,
        width=128,
        num_inference_steps=20,
        guidance_scale=guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in (5, 6)],
    ).image_embeddings
    own = latents(
        pipeline,
        *(
            ImageRequest(prompt, seed, negative_prompt=negative, guidance_scale=guidance_scale)
            for prompt, seed in zip(prompts, (5, 6), strict=True)
        ),
    )
    assert own.dtype == expected.dtype == torch.float64
    # A random network leaves latents of several hundred, since what it does not recognise as noise
    # is divided by sqrt(alpha-bar(1)) = 0.01. Over all steps a rounding is multiplied by some 1e4
    # (in float32 the two sides are 6e-4 of the value apart, at 2^-24 = 6e-8 a rounding), which in
    # float64, at 2^-53, is 1e-12 of it. The rest is for processors that round otherwise.
    torch.testing.assert_close(own, expected, rtol=1e-10, atol=1e-10)


# 1e-5 in the predicted noise (some hundred sums, each rounded by 2^-24 of values of a few units)
# times 1 / sqrt(alpha-bar(1)) = 100, by which a step from t = 1 multiplies it; float64 rounds 2^-29
# times as much, 2e-12, and a wrong row would be wrong by 0.1 in either.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-3)])
def test_a_batch_of_different_requests_equals_each_alone(
    random_pipeline: Callable[[torch.dtype], Pipeline],
    user_emb_D: np.ndarray,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    pipeline = random_pipeline(dtype)
    requests = [
        ImageRequest("a red boat", 1, user_emb_D=user_emb_D, steps=6),
        ImageRequest("the sea at night", 2, steps=3, guidance_scale=1.0),
        ImageRequest("a tree", 3, user_emb_D=-user_emb_D, strength=0.5, steps=4, guidance_scale=7),
        ImageRequest("a house", 4, negative_prompt="night", steps=6),
    ]
    together = latents(pipeline, *requests)
    assert together.dtype == dtype
    for row, request in enumerate(requests):
        alone = latents(pipeline, request)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=tolerance)


def test_a_float64_picture_is_the_same_alone_and_in_company(
    wide_pipeline: Pipeline, user_emb_D: np.ndarray
) -> None:
    pipeline = wide_pipeline
    requests = [
        ImageRequest("a red boat", 1, user_emb_D=user_emb_D, steps=2),
        ImageRequest("a tree", 2, steps=5),
    ]
    for request, together in zip(requests, pipeline.generate(requests), strict=True):
        (alone,) = pipeline.generate([request])
        assert np.array_equal(together.image_HWC, alone.image_HWC)


def test_the_same_request_gives_the_same_bytes(pipeline: Pipeline, user_emb_D: np.ndarray) -> None:
    request = ImageRequest("a red boat", 1, user_emb_D=user_emb_D, steps=3)
    (one,), (again,) = pipeline.generate([request]), pipeline.generate([request])
    assert one.image_HWC.shape == (128, 128, 3)
    assert one.image_HWC.dtype == np.uint8
    assert one.seed == 1
    assert one.denoise_s > 0 < one.decode_s
    assert one.image_HWC.tobytes() == again.image_HWC.tobytes()


@pytest.mark.parametrize(
    "change",
    [
        *("seed", "prompt", "user", "strength", "guidance", "steps"),
        *("solver", "noisy solver", "guidance interval"),
    ],
)
def test_everything_in_a_request_matters(
    pipeline: Pipeline, user_emb_D: np.ndarray, change: str
) -> None:
    request = ImageRequest("a red boat", 1, user_emb_D=user_emb_D, steps=3)
    other = {
        "seed": replace(request, seed=2),
        "prompt": replace(request, prompt="the sea"),
        "user": replace(request, user_emb_D=-user_emb_D),
        "strength": replace(request, strength=0.5),
        "guidance": replace(request, guidance_scale=2.0),
        "solver": replace(request, solver="dpm++2m"),
        "noisy solver": replace(request, solver="dpm++2m-sde"),
        "guidance interval": replace(request, guidance_interval=(0.5, 1.0)),
        "steps": replace(request, steps=4),
    }[change]
    assert (latents(pipeline, request) - latents(pipeline, other)).abs().max() > 1e-3


# The base model


def test_no_user_a_zero_embedding_and_strength_0_are_the_base_bit_for_bit(
    pipeline: Pipeline, user_emb_D: np.ndarray, same_bits: SameBits
) -> None:
    base = ImageRequest("a red boat", 1, steps=3)
    expected = latents(pipeline, base)
    zero = replace(base, user_emb_D=np.zeros_like(user_emb_D))
    off = replace(base, user_emb_D=user_emb_D, strength=0.0)
    on = replace(base, user_emb_D=user_emb_D)
    assert same_bits(latents(pipeline, zero), expected)
    assert same_bits(latents(pipeline, off), expected)
    with pipeline.stage_c.adapter.disabled():
        assert same_bits(latents(pipeline, on), expected)
    assert not same_bits(latents(pipeline, on), expected)


def test_base_rows_beside_a_personalised_one_keep_every_bit(
    pipeline: Pipeline, user_emb_D: np.ndarray, same_bits: SameBits
) -> None:
    base = ImageRequest("a red boat", 1, steps=3)
    on = replace(base, user_emb_D=user_emb_D)
    off = replace(on, strength=0.0)
    mixed = latents(pipeline, base, off, on)
    plain = latents(pipeline, base, base, base)
    assert [same_bits(mixed[row], plain[row]) for row in range(3)] == [True, True, False]


def test_the_user_speaks_in_the_prompts_rows_only_unless_asked(
    pipeline: Pipeline, user_emb_D: np.ndarray
) -> None:
    request = ImageRequest("a red boat", 1, user_emb_D=user_emb_D, steps=3)
    conditional_only = latents(pipeline, request)
    pipeline.personalize_negative = True
    assert (latents(pipeline, request) - conditional_only).abs().max() > 1e-3


def test_the_user_speaks_from_the_presets_time_on(
    wide_pipeline: Pipeline, user_emb_D: np.ndarray
) -> None:
    pipeline = wide_pipeline
    base = ImageRequest("a red boat", 1, steps=4, guidance_scale=1.0)
    on = replace(base, user_emb_D=user_emb_D)
    seen: list[list[float]] = []
    predict = pipeline.stage_c.predict_noise

    def watched(xt_BCHW: Tensor, t_B: Tensor, attended: AttentionInput) -> Tensor:
        user = attended.user
        seen.append([0.0] * len(t_B) if user is None else user.strength_B.tolist())
        return predict(xt_BCHW, t_B, attended)

    pipeline.stage_c.predict_noise = watched  # type: ignore[method-assign]
    pipeline.set_personalize_below(None)
    assert pipeline.preset.personalize_below == get_preset("mini").personalize_below
    for outside in (0.0, 1.5):
        with pytest.raises(ValueError, match="expected above 0"):
            pipeline.set_personalize_below(outside)
    pipeline.set_personalize_below(0.5)
    # Four steps begin at t = 1, .75, .5, .25; two at 1, .5; one at 1, which is all it has. Until it
    # is personalised, the first is what the base is: one pass.
    together = latents(pipeline, on, replace(on, steps=2), replace(on, steps=1), base)
    assert seen == [[0, 0, 1], [0, 1], [1, 0], [1, 0]]  # who has arrived has left
    seen.clear()
    alone = latents(pipeline, on)
    assert seen == [[0], [0], [1], [1]]
    # Rounding in float64, as above.
    assert (together[:1] - alone).abs().max() < 1e-10
    assert (together[3:] - latents(pipeline, base)).abs().max() < 1e-10


def test_keys_and_values_of_the_text_are_made_once_for_all_steps(
    pipeline: Pipeline, user_emb_D: np.ndarray
) -> None:
    blocks = attention_blocks(pipeline.stage_c.unet)
    calls = []
    for block in blocks:
        block.kv_mapper.register_forward_hook(lambda *_: calls.append("text"))
    for to_k in pipeline.stage_c.adapter.to_k:
        to_k.register_forward_hook(lambda *_: calls.append("user"))
    latents(pipeline, ImageRequest("a red boat", 1, user_emb_D=user_emb_D, steps=5))
    assert calls.count("text") == 2 * len(blocks)  # the prompt and the negative one
    assert calls.count("user") == len(blocks)


# Progress, cancelling, refusals


def test_progress_counts_the_steps_of_the_longest_row(pipeline: Pipeline) -> None:
    seen: list[tuple[int, int]] = []
    requests = [ImageRequest("a tree", 1, steps=2), ImageRequest("a tree", 2, steps=3)]
    pipeline.generate(requests, on_step=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_cancelled_batch_stops_at_the_next_step(pipeline: Pipeline) -> None:
    done = 0

    def count(step: int, _: int) -> None:
        nonlocal done
        done = step

    request = ImageRequest("a tree", 1, steps=20)
    with pytest.raises(Cancelled):
        pipeline.generate([request], on_step=count, cancelled=lambda: done == 2)
    assert done == 2


def test_cancelling_reaches_the_decoder(pipeline: Pipeline) -> None:
    asked = 0

    def after_the_last_step() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    with pytest.raises(Cancelled):
        pipeline.generate([ImageRequest("a tree", 1, steps=3)], cancelled=after_the_last_step)


@pytest.mark.parametrize("part", ["stage_c", "decoder"])
def test_nan_is_an_error_and_never_a_picture(pipeline: Pipeline, part: str) -> None:
    with torch.no_grad():
        for parameter in getattr(pipeline, part).parameters():
            parameter.fill_(float("nan"))
    what = "Stage C latents" if part == "stage_c" else "pixels"
    with pytest.raises(NumericalError, match=f"{what} hold NaN"):
        pipeline.generate([ImageRequest("a tree", 1, steps=2)])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, r"seed must lie in \[0, 4294967295\], got -1"),
        ({"seed": 2**32}, "seed must lie in .* got 4294967296"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"solver": "euler"}, "solver 'euler': expected one of ddpm"),
        ({"guidance_interval": (0.5, 0.2)}, r"guidance_interval \(0.5, 0.2\)"),
        ({"guidance_interval": (0.5, 1.2)}, "expected 0 <= low <= high <= 1"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be finite .* got nan"),
        ({"strength": -0.5}, "strength must be finite and at least 0, got -0.5"),
        ({"width_px": 130}, "130"),
        ({"user_emb_D": np.ones(19, np.float32)}, r"shape \(19,\): expected \(20,\)"),
        ({"user_emb_D": np.full(20, np.inf, np.float32)}, "every value finite"),
    ],
)
def test_a_request_that_cannot_be_made_is_refused(
    pipeline: Pipeline, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline.generate([replace(ImageRequest("a tree", 1), **wrong)])


def test_an_empty_batch_and_two_sizes_are_refused(pipeline: Pipeline) -> None:
    with pytest.raises(ValueError, match="no requests"):
        pipeline.generate([])
    requests = [ImageRequest("a tree", 1), ImageRequest("a tree", 1, width_px=256)]
    with pytest.raises(ValueError, match=r"one size, got \[\(128, 128\), \(128, 256\)\]"):
        pipeline.generate(requests)


# Loading


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pipeline, Path]:
    """A random ``mini`` and its folder of artifacts."""
    preset = get_preset("mini")
    folder = tmp_path_factory.mktemp("mini")
    pipeline = Pipeline.random(preset, ["a", "red", "boat"])
    parts = {
        "stage_a": (pipeline.decoder.stage_a, preset.stage_a),
        "stage_b": (pipeline.decoder.stage_b, preset.stage_b),
        "stage_c": (pipeline.stage_c.unet, preset.stage_c),
        "text_encoder": (pipeline.text_encoder.model, preset.text_encoder),
    }
    for kind, (module, config) in parts.items():
        spec = ArtifactSpec(kind, config, preset.base_model)
        save_artifact(folder / f"{kind}.safetensors", module.state_dict(), spec)
    spec = adapter_spec(preset, encoder_id="encoder-1")
    save_artifact(folder / "adapter.safetensors", pipeline.stage_c.adapter.state_dict(), spec)
    save_word_tokenizer(pipeline.text_encoder.tokenizer, folder / "text_tokenizer.json")
    write_manifest(folder)
    return pipeline, folder


@pytest.fixture
def folder(saved: tuple[Pipeline, Path], tmp_path: Path) -> Path:
    """A copy of the folder that a test may damage."""
    return shutil.copytree(saved[1], tmp_path / "weights")


def test_a_loaded_pipeline_makes_the_saved_ones_picture(saved: tuple[Pipeline, Path]) -> None:
    original, folder = saved
    loaded = Pipeline.load("mini", folder, encoder_id="encoder-1")
    user_emb_D = np.ones(128, np.float32)
    request = ImageRequest("a red boat", 1, user_emb_D=user_emb_D, steps=2)
    (one,), (other,) = original.generate([request]), loaded.generate([request])
    assert one.image_HWC.tobytes() == other.image_HWC.tobytes()
    assert loaded.encoder_id == "encoder-1"
    assert len(loaded.adapter_version) == 12
    assert loaded.model_id.startswith("ppd-mini-1@")


def test_without_the_adapter_it_is_the_base(saved: tuple[Pipeline, Path]) -> None:
    base = Pipeline.load("mini", saved[1], with_adapter=False)
    request = ImageRequest("a red boat", 1, steps=1)
    personal = replace(request, user_emb_D=np.ones(128, np.float32))
    assert base.adapter_version == "none"
    assert torch.equal(latents(base, personal), latents(base, request))


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        Pipeline.load("mini", tmp_path)
    with pytest.raises(ValueError, match="no adapter is published for stable-cascade"):
        Pipeline.load("stable-cascade")


def test_a_damaged_part_is_refused(folder: Path) -> None:
    path = folder / "stage_c.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"stage_c\.safetensors: sha256 is"):
        Pipeline.load("mini", folder)


@pytest.mark.parametrize("part", ["stage_a", "stage_b", "stage_c", "text_encoder", "adapter"])
def test_a_part_that_is_not_there_is_named(folder: Path, part: str) -> None:
    (folder / f"{part}.safetensors").unlink()
    write_manifest(folder)
    with pytest.raises(FileNotFoundError, match=rf"no {part} weights at .*{part}\.safetensors"):
        Pipeline.load("mini", folder)


def test_an_adapter_of_another_base_or_encoder_is_refused_with_both_ids(
    saved: tuple[Pipeline, Path], folder: Path
) -> None:
    message = "user encoder is 'encoder-1', expected 'encoder-2'"
    with pytest.raises(ArtifactError, match=message):
        Pipeline.load("mini", folder, encoder_id="encoder-2")

    foreign = replace(get_preset("mini"), base_model="ppd-mini-0")
    spec = adapter_spec(foreign, encoder_id="encoder-1")
    adapter = saved[0].stage_c.adapter
    save_artifact(folder / "adapter.safetensors", adapter.state_dict(), spec)
    write_manifest(folder)
    with pytest.raises(ArtifactError, match="base model is 'ppd-mini-0', expected 'ppd-mini-1'"):
        Pipeline.load("mini", folder)


def test_another_adapter_can_be_put_in_place(saved: tuple[Pipeline, Path], tmp_path: Path) -> None:
    pipeline = Pipeline.load("mini", saved[1], with_adapter=False)
    tensors = {
        name: torch.full_like(value, 0.01)
        for name, value in pipeline.stage_c.adapter.state_dict().items()
    }
    spec = adapter_spec(pipeline.preset, encoder_id="encoder-3", run="seven")
    digest = save_artifact(tmp_path / "other.safetensors", tensors, spec)
    pipeline.use_adapter(tmp_path / "other.safetensors", encoder_id="encoder-3")
    assert pipeline.adapter_version == digest[:12]
    assert pipeline.encoder_id == "encoder-3"


def test_a_picture_keeps_the_adapter_it_began_with(
    saved: tuple[Pipeline, Path], tmp_path: Path
) -> None:
    """Keys and values are data of the call: another adapter put in place meanwhile changes none."""
    pipeline = Pipeline.load("mini", saved[1])
    mine = pipeline.installed
    weights = mine.adapter.state_dict()
    opposite = {n: -value if n.startswith("to_v") else value for n, value in weights.items()}
    path = tmp_path / "other.safetensors"
    save_artifact(path, opposite, adapter_spec(pipeline.preset, encoder_id="encoder-1"))
    random_state = torch.random.get_rng_state()
    other = pipeline.adapter_from(path)
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert pipeline.installed == mine
    request = ImageRequest("a red boat", 1, user_emb_D=np.ones(128, np.float32), steps=3)
    expected = pipeline.generate([request])[0].image_HWC.tobytes()

    def swap(done: int, _: int) -> None:
        if done == 1:
            pipeline.install(other)

    assert pipeline.generate([request], swap)[0].image_HWC.tobytes() == expected
    assert pipeline.adapter_version == other.version
    assert pipeline.generate([request])[0].image_HWC.tobytes() != expected
    with pipeline.stage_c.adapter.disabled(), pytest.raises(AssertionError, match="disabled"):
        pipeline.install(mine)
    pipeline.install(mine)
    assert pipeline.generate([request])[0].image_HWC.tobytes() == expected


def test_an_adapter_brings_its_own_number_of_user_tokens(
    saved: tuple[Pipeline, Path], tmp_path: Path
) -> None:
    pipeline = Pipeline.load("mini", saved[1])
    more = replace(pipeline.preset, user_tokens=pipeline.preset.user_tokens * 2)
    adapter = build_adapter(more, pipeline.stage_c.unet)
    path = tmp_path / "other.safetensors"
    save_artifact(path, adapter.state_dict(), adapter_spec(more, encoder_id="encoder-1"))
    before = pipeline.installed.adapter.projector.tokens
    other = pipeline.adapter_from(path)
    assert (before, other.adapter.projector.tokens) == (4, 8)
    pipeline.install(other)
    request = ImageRequest("a red boat", 1, user_emb_D=np.ones(128, np.float32), steps=1)
    assert pipeline.generate([request])[0].image_HWC.shape == (128, 128, 3)
