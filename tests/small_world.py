"""Preference data of a small world, precomputed by small random parts of mini, without a VLM."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

from ppd_model.files.artifact import ArtifactSpec, save_artifact
from ppd_model.nets.compressor import SmallCompressor
from ppd_model.nets.text_encoder import build_text_model, save_word_tokenizer, word_tokenizer
from ppd_model.presets import get_preset
from tests.fake_store import FakeStore
from training.precompute import __main__ as precompute_module
from training.precompute.__main__ import precompute
from training.precompute.precompute_config import PrecomputeConfig
from training.world.captions import vocabulary
from training.world.export import ExportConfig, export
from training.world.store import PictureStore

MINI = get_preset("mini")
SMALL_TEXT = {"hidden_size": 16, "intermediate_size": 16, "projection_dim": 16}
PRESET = replace(
    MINI,
    compressor=MINI.compressor | {"widths": (2, 2, 2, 2)},
    text_encoder=MINI.text_encoder | SMALL_TEXT | {"num_hidden_layers": 1},
)


def write_small_world(folder: Path) -> None:
    """Random weights in folder/weights, and in folder/world the preferences of 14 people with
    their ground truth."""
    weights = folder / "weights"
    torch.manual_seed(0)
    compressor = SmallCompressor(**PRESET.compressor)
    spec = ArtifactSpec("compressor", {}, PRESET.base_model)
    save_artifact(weights / "compressor.safetensors", compressor.state_dict(), spec)
    tokenizer = word_tokenizer(vocabulary(), PRESET.text_encoder["max_position_embeddings"])
    spec = ArtifactSpec("text_encoder", {}, PRESET.base_model)
    text = build_text_model(PRESET, tokenizer)
    save_artifact(weights / "text_encoder.safetensors", text.state_dict(), spec)
    save_word_tokenizer(tokenizer, weights / "text_tokenizer.json")
    store = cast(PictureStore, FakeStore())
    config = ExportConfig(out=folder / "world", users=14, pairs=16)
    export(config, store, rows_per_file=100, measured=2)


def precompute_small_world(folder: Path) -> Path:
    """The small world as a folder of training.precompute, without a VLM; returns it."""
    write_small_world(folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(precompute_module, "get_preset", {"mini": PRESET}.__getitem__)
        precompute(
            PrecomputeConfig(
                preset="mini",
                data=str(folder / "world" / "data"),
                truth=folder / "world" / "truth.npz",
                weights_dir=folder / "weights",
                output_dir=folder / "pairs",
                held_out="shares",
                unseen_user_share=0.3,
                validation_caption_share=0.15,
                held_out_caption_share=0.3,
                support_sets=1,
                vlm=False,
                population_samples=50,
                pictures_per_shard=60,
                captions_per_shard=10,
            )
        )
    return folder / "pairs"
