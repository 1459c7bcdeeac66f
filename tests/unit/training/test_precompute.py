"""Precompute on a small painted world, with random weights and a VLM of a few lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ppd_model.checkpoint import ArtifactSpec, save_artifact
from ppd_model.compressor import SmallCompressor
from ppd_model.presets import get_preset
from ppd_model.text_encoder import build_text_model, save_word_tokenizer, word_tokenizer
from ppd_model.user_encoder import Choice, EncodedUser
from training import precompute as module
from training.dataset import load_pairs
from training.precompute import PrecomputeConfig, precompute
from training.world.captions import vocabulary
from training.world.looks import Standardizer
from training.world.scene import CONTENTS, LOOKS

PRESET = get_preset("mini")
PER_CONTENT = 12


class SmallStore:
    """Random pictures and looks; the facts of a painted store without the painting."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        self.content = np.arange(CONTENTS * PER_CONTENT) % CONTENTS
        self.pictures = rng.integers(0, 256, (len(self.content), 32, 32, 3), dtype=np.uint8)
        self.looks = rng.normal(size=(len(self.content), len(LOOKS))).astype(np.float32)
        self.subject, self.setting = self.content // 6, self.content % 6
        self.standardizer: Standardizer | None = None

    def __len__(self) -> int:
        return len(self.content)

    def by_content(self) -> list[np.ndarray]:
        return [np.flatnonzero(self.content == content) for content in range(CONTENTS)]


class FakeEncoder:
    """Its embedding counts the answers for the second picture; remembers how often it ran."""

    encoder_version = "fake-1"
    calls = 0

    def encode_batch(self, many: Sequence[Sequence[Choice]]) -> list[EncodedUser]:
        FakeEncoder.calls += 1
        assert all(len(choices) == 4 for choices in many)
        return [
            EncodedUser(
                profile=choices[0].caption,
                transcript="",
                user_emb_D=np.full(
                    PRESET.user_emb_dim, sum(c.preferred for c in choices), np.float32
                ),
                confidence=1.0,
                likes=[],
                dislikes=[],
            )
            for choices in many
        ]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PrecomputeConfig:
    weights = tmp_path / "weights"
    torch.manual_seed(0)
    compressor = SmallCompressor(**PRESET.compressor)
    spec = ArtifactSpec("compressor", {}, PRESET.base_model)
    save_artifact(weights / "compressor.safetensors", compressor.state_dict(), spec)
    tokenizer = word_tokenizer(vocabulary(), PRESET.text_encoder["max_position_embeddings"])
    text = build_text_model(PRESET, tokenizer)
    spec = ArtifactSpec("text_encoder", {}, PRESET.base_model)
    save_artifact(weights / "text_encoder.safetensors", text.state_dict(), spec)
    save_word_tokenizer(tokenizer, weights / "text_tokenizer.json")
    monkeypatch.setattr(module, "PictureStore", SmallStore)
    monkeypatch.setattr(module.UserEncoder, "load", lambda *_, **__: FakeEncoder())
    FakeEncoder.calls = 0
    return PrecomputeConfig(
        preset="mini",
        store_dir=tmp_path,
        weights_dir=weights,
        output_dir=tmp_path / "out",
        people=5,
        query_pairs=7,
        population_samples=500,
        captions_per_content=2,
        people_per_shard=2,
    )


def test_what_is_written_is_what_the_data_set_reads(config: PrecomputeConfig) -> None:
    precompute(config)
    pairs = load_pairs(config.output_dir, "vlm", PRESET.user_emb_dim)
    assert (len(pairs), pairs.people) == (35, 5)
    assert pairs.provenance["encoder_id"] == "fake-1"
    store = SmallStore(config.store_dir)
    assert torch.from_numpy(store.content)[pairs.chosen_P].equal(pairs.caption_P // 2)
    assert torch.from_numpy(store.content)[pairs.rejected_P].equal(pairs.caption_P // 2)
    assert len(pairs.latent_NCHW) == len(store)
    assert pairs.user_emb_ED.shape == (10, PRESET.user_emb_dim)
    profiles = json.loads((config.output_dir / "profiles-00000.json").read_text())
    assert len(profiles) == 4


def test_an_embedding_belongs_to_the_answers_beside_it(config: PrecomputeConfig) -> None:
    precompute(config)
    for path in sorted(config.output_dir.glob("people-*.safetensors")):
        shard = load_file(path)
        assert shard["user_emb_ED"][:, 0].tolist() == shard["support_preferred_E4"].sum(1).tolist()
        for taste_L, estimate_L in zip(
            shard["taste_UL"].repeat_interleave(2, 0), shard["posterior_EL"], strict=True
        ):
            assert 0 < estimate_L.norm() < taste_L.norm()


def test_an_interrupted_run_goes_on_where_it_was(
    config: PrecomputeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_batch = FakeEncoder.encode_batch

    def fail_at_third(self: FakeEncoder, many: Sequence[Sequence[Choice]]) -> list[EncodedUser]:
        if FakeEncoder.calls == 2:
            raise KeyboardInterrupt
        return encode_batch(self, many)

    with monkeypatch.context() as broken:
        broken.setattr(FakeEncoder, "encode_batch", fail_at_third)
        with pytest.raises(KeyboardInterrupt):
            precompute(config)
    with pytest.raises(ValueError, match="not finished"):
        load_pairs(config.output_dir, "vlm", PRESET.user_emb_dim)
    FakeEncoder.calls = 0
    precompute(config, resume=True)
    assert FakeEncoder.calls == 1
    assert load_pairs(config.output_dir, "vlm", PRESET.user_emb_dim).people == 5


def test_other_values_do_not_continue_a_folder(config: PrecomputeConfig) -> None:
    precompute(config)
    with pytest.raises(ValueError, match="query_pairs"):
        precompute(config.model_copy(update={"query_pairs": 8}), resume=True)


def test_without_the_vlm_only_tastes_stand_for_people(config: PrecomputeConfig) -> None:
    precompute(config.model_copy(update={"vlm": False}))
    assert FakeEncoder.calls == 0
    load_pairs(config.output_dir, "taste", PRESET.user_emb_dim)
    with pytest.raises(ValueError, match="without the VLM"):
        load_pairs(config.output_dir, "vlm", PRESET.user_emb_dim)


def test_people_of_the_test_split_are_never_trained_on(config: PrecomputeConfig) -> None:
    with pytest.raises(ValueError, match="split"):
        PrecomputeConfig.model_validate(config.model_dump() | {"split": "test"})
