"""The published sizes, checked at full size on the meta device: names, shapes and counts."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from ppd_model.nets.compressor import build_compressor
from ppd_model.presets import REVISIONS, VLM_05B, get_preset
from ppd_model.verify import expected_shapes

LITE = "stable-cascade-1b+lite-decoder"
COUNTS = [
    ("stable-cascade-1b", "stage_c", 1_030_785_040),
    ("stable-cascade", "stage_c", 3_589_103_632),
    ("stable-cascade", "stage_b", 1_562_941_136),
    (LITE, "stage_b", 699_471_248),
    ("stable-cascade", "text_encoder", 694_659_840),
]


@pytest.mark.parametrize(("preset", "part", "parameters"), COUNTS)
def test_parameters_at_full_size(preset: str, part: str, parameters: int) -> None:
    shapes = expected_shapes(get_preset(preset), part)
    assert sum(math.prod(shape) for shape in shapes.values()) == parameters


def test_keys_that_published_files_are_known_to_hold() -> None:
    preset = get_preset("stable-cascade-1b")
    stage_c = expected_shapes(preset, "stage_c")
    assert stage_c["clip_txt_mapper.weight"] == (1536, 1280)
    assert stage_c["clip_txt_pooled_mapper.weight"] == (4 * 1536, 1280)
    stage_b = expected_shapes(preset, "stage_b")
    assert stage_b["down_blocks.1.0.channelwise.0.weight"][-1] == 640
    lite = expected_shapes(get_preset(LITE), "stage_b")
    assert lite["down_blocks.1.0.channelwise.0.weight"][-1] == 576
    text = expected_shapes(preset, "text_encoder")
    assert text["text_model.embeddings.token_embedding.weight"] == (49408, 1280)
    assert text["text_projection.weight"] == (1280, 1280)


def test_the_compressor_has_the_names_and_shapes_of_torchvisions_features() -> None:
    # Compared once with torchvision 0.28's `efficientnet_v2_s().features`, whose values agree to
    # the last bit: 780 entries, 20,177,488 parameters. This is the digest of that list.
    shapes = expected_shapes(get_preset("stable-cascade"), "compressor")
    backbone = {key: shape for key, shape in shapes.items() if key.startswith("backbone.")}
    listed = "\n".join(f"{key} {shape}" for key, shape in shapes.items())
    assert len(backbone) == 780
    assert hashlib.sha256(listed.encode()).hexdigest() == (
        "8851d57d65ab94415db87ef643002aeac63d5567a62ebe8cd48fe2d3b9a96b93"
    )
    learned = [
        math.prod(shape)
        for key, shape in backbone.items()
        if not key.endswith(("running_mean", "running_var", "num_batches_tracked"))
    ]
    assert sum(learned) == 20_177_488
    assert shapes["backbone.0.0.weight"] == (24, 3, 3, 3)
    assert shapes["mapper.0.weight"] == (16, 1280, 1, 1)
    assert "mapper.0.bias" not in shapes
    assert "mapper.1.weight" not in shapes
    assert shapes["mapper.1.running_mean"] == (16,)


def test_768_px_become_16_times_24_times_24() -> None:
    with torch.device("meta"):
        compressor = build_compressor(get_preset("stable-cascade"))
        assert compressor(torch.zeros(1, 3, 768, 768)).shape == (1, 16, 24, 24)


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        (
            dict(
                hidden_size=3584,
                intermediate_size=18944,
                num_hidden_layers=28,
                num_attention_heads=28,
                num_key_value_heads=4,
                vocab_size=152128,
            ),
            8_030_807_584,
        ),
        (
            dict(
                hidden_size=896,
                intermediate_size=4864,
                num_hidden_layers=24,
                num_attention_heads=14,
                num_key_value_heads=2,
                vocab_size=152000,
                tie_word_embeddings=True,
            ),
            893_675_552,
        ),
    ],
)
def test_parameters_of_the_vlms(text: dict[str, object], parameters: int) -> None:
    with torch.device("meta"):
        config = LlavaOnevisionConfig(text_config=dict(model_type="qwen2", **text))
        model = LlavaOnevisionForConditionalGeneration(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_options_follow_the_name() -> None:
    preset = get_preset("stable-cascade-1b+lite-decoder+small-vlm")
    assert preset.name == "stable-cascade-1b+lite-decoder+small-vlm"
    assert preset.base_model == get_preset("stable-cascade-1b").base_model
    assert preset.published["stage_b"].folder == "decoder_lite"
    assert preset.vlm == preset.published["vlm"].repository == VLM_05B
    assert preset.user_emb_dim == 896
    assert preset.revisions.keys() == {part.repository for part in preset.published.values()}
    for name in ("mini+small-vlm", "stable-cascade+big"):
        with pytest.raises(ValueError, match="unknown option"):
            get_preset(name)


def test_tiny_weights_have_the_published_files_and_are_taken_for_no_others() -> None:
    full, tiny = (get_preset(f"stable-cascade{option}") for option in ("", "+tiny"))
    assert tiny.published == full.published
    assert expected_shapes(tiny, "stage_b").keys() < expected_shapes(full, "stage_b").keys()
    assert tiny.base_model != full.base_model


def test_every_repository_is_pinned_to_a_commit_or_honestly_to_main() -> None:
    for revision in REVISIONS.values():
        assert revision == "main" or (len(revision) == 40 and int(revision, 16))
