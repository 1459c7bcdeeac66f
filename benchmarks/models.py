"""The models that are measured: shipped, small enough for two cores, and of the published sizes.

The latter have random weights, which changes no timing, and only what is timed: Stage C and the
adapter. Their prompts are as long and as wide as the published text encoder's, read by two of its
layers.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from benchmarks.sides import NoDecoder
from ppd_model.nets.stage_c import StageC, build_adapter, build_unet
from ppd_model.nets.text_encoder import TextEncoder, build_text_model, word_tokenizer
from ppd_model.pipeline import Pipeline
from ppd_model.presets import Preset, get_preset

PUBLISHED = ("stable-cascade-1b", "stable-cascade")
MODELS = ("bench", "mini", *PUBLISHED)
WORDS = ("a", "boat", "tree", "house", "fish", "rocket", "balloon", "flower", "mushroom", "at")
WORDS += ("the", "sea")
TEXT_LAYERS = 2


def pipeline_of(model: str, device: str = "cpu", *, decoder: bool = False) -> Pipeline:
    """Any of `MODELS`. Those of published sizes are bfloat16 on a GPU and float32 on the CPU.

    `decoder` keeps `mini`'s; the others have none.
    """
    if model == "mini":
        pipeline = Pipeline.load("mini", device=device)
        if not decoder:
            pipeline.decoder = NoDecoder()  # type: ignore[assignment]
        return pipeline
    return random_pipeline(bench_preset() if model == "bench" else full_preset(model), device)


def bench_preset() -> Preset:
    """`mini` with a Stage C of 64 channels, both levels on the whole 8 x 8."""
    mini = get_preset("mini")
    own = dict(
        conditioning_dim=64,
        block_out_channels=(64, 64),
        num_attention_heads=(2, 2),
        switch_level=(False,),
    )
    return replace(mini, name="bench", base_model="bench", stage_c=mini.stage_c | own)


def full_preset(name: str) -> Preset:
    """What Stage C and adapter need of a published preset, with a text encoder of few layers."""
    published = get_preset(name)
    text = {k: v for k, v in published.text_encoder.items() if k != "vocab_size"}
    return replace(published, published={}, text_encoder=text | {"num_hidden_layers": TEXT_LAYERS})


def random_stage_c(preset: Preset, device: str, seed: int = 0) -> StageC:
    """Base (bfloat16 on a GPU) and float32 adapter, made on the device; the adapter matters."""
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed)
        unet = build_unet(preset).to(dtype)
        adapter = build_adapter(preset, unet)
        for weight in adapter.to_v.parameters():
            torch.nn.init.normal_(weight, std=preset.user_token_dim**-0.5)
    return StageC(unet, adapter)


def random_pipeline(preset: Preset, device: str, seed: int = 0) -> Pipeline:
    """A pipeline without Stages B and A."""
    stage_c = random_stage_c(preset, device, seed)
    tokenizer = word_tokenizer(WORDS, preset.text_encoder["max_position_embeddings"])
    text_encoder = TextEncoder(
        build_text_model(preset, tokenizer).to(stage_c.unet.dtype), tokenizer
    )
    return Pipeline(
        preset,
        text_encoder,
        stage_c,
        NoDecoder(),  # type: ignore[arg-type]
        model_id=f"{preset.base_model}@random-{seed}",
        adapter_version=f"random-{seed}",
        encoder_id=f"random-{seed}",
        device=device,
    )
