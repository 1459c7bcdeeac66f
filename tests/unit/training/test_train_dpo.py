"""The adapter's training loop on random weights and random pairs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ppd_model.checkpoint import ArtifactError, ArtifactSpec, load_artifact, save_artifact
from ppd_model.presets import get_preset
from ppd_model.stage_c import build_stage_c, load_adapter, load_stage_c
from training import train_dpo
from training.dataset import load_pairs
from training.shards import ShardFolder
from training.train_dpo import DpoConfig, draw, lr_at, pair_loss, train

MINI = get_preset("mini")
SMALL: dict[str, object] = {
    "conditioning_dim": 16,
    "block_out_channels": (16, 32),
    "num_attention_heads": (2, 4),
}
PRESET = replace(MINI, stage_c=MINI.stage_c | SMALL, user_emb_dim=12, user_token_dim=16)
PEOPLE, PAIRS_EACH, PICTURES = 8, 6, 12


@pytest.fixture(autouse=True)
def _small_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_dpo, "get_preset", {"mini": PRESET}.__getitem__)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random base weights and random precomputed pairs."""
    folder = tmp_path_factory.mktemp("world")
    torch.manual_seed(0)
    unet = build_stage_c(PRESET).unet
    spec = ArtifactSpec("stage_c", {}, PRESET.base_model)
    save_artifact(folder / "stage_c.safetensors", unet.state_dict(), spec)

    shards = ShardFolder(folder / "pairs", {"encoder_id": "random"}, resume=False)
    text_width = PRESET.text_encoder["hidden_size"]
    shards.write(
        "latents-00000.safetensors", {"latent_NCHW": torch.randn(PICTURES, 16, 8, 8).half()}
    )
    shards.write(
        "captions.safetensors",
        {
            "text_KST": torch.randn(5, 7, text_width).half(),
            "pooled_K1T": torch.randn(5, 1, text_width).half(),
        },
    )
    person_P = torch.arange(PEOPLE).repeat_interleave(PAIRS_EACH)
    chosen_P = torch.randint(PICTURES, person_P.shape)
    shards.write(
        "people-00000.safetensors",
        {
            "taste_UL": torch.randn(PEOPLE, 8),
            "person_E": torch.arange(PEOPLE).repeat_interleave(2),
            "posterior_EL": torch.randn(2 * PEOPLE, 8),
            "user_emb_ED": torch.randn(2 * PEOPLE, PRESET.user_emb_dim),
            "person_P": person_P,
            "split_P": torch.zeros_like(person_P),
            "chosen_P": chosen_P,
            "rejected_P": (chosen_P + 1) % PICTURES,
            "caption_P": torch.randint(5, person_P.shape),
        },
    )
    shards.finish()
    return folder


def config(world: Path, output_dir: Path, **changes: object) -> DpoConfig:
    values: dict[str, object] = {
        "preset": "mini",
        "data_dir": world / "pairs",
        "stage_c": world / "stage_c.safetensors",
        "output_dir": output_dir,
        "steps": 3,
        "batch": 4,
        "lr": 1e-3,
        "beta": 0.5,
        "validation_people": 2,
        "log_every": 1,
        "checkpoint_every": 1,
        "trackers": (),
    }
    return DpoConfig.model_validate(values | changes)


def log_of(output_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output_dir / "log.jsonl").read_text().splitlines()]


def test_the_first_step_costs_log_two(world: Path, tmp_path: Path) -> None:
    train(config(world, tmp_path))
    first = log_of(tmp_path)[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["implicit_accuracy"] == 0.5
    assert first["grad_norm"] > 0
    assert {"margin", "chosen_error", "rejected_error"} <= first.keys()


def test_exactly_the_adapter_trains(world: Path, tmp_path: Path) -> None:
    run = config(world, tmp_path)
    stage_c = load_stage_c(PRESET, run.stage_c)
    before = {name: value.clone() for name, value in stage_c.state_dict().items()}
    pairs = load_pairs(run.data_dir, "vlm", PRESET.user_emb_dim)
    optimizer = torch.optim.AdamW((p for p in stage_c.parameters() if p.requires_grad), lr=1e-2)
    for step in range(2):  # to_k and the projector move once to_v is no longer zero
        draws = draw(4, pairs.latent_NCHW.shape[1:], 0, step, run)
        batch = pairs.batch(torch.arange(4), draws.which_embedding_B)
        optimizer.zero_grad()
        pair_loss(stage_c.train(), batch, draws, run).loss.backward()
        optimizer.step()
    moved = {name for name, value in stage_c.state_dict().items() if not value.equal(before[name])}
    assert moved == {f"adapter.{name}" for name, _ in stage_c.adapter.named_parameters()}


def test_resuming_gives_the_weights_of_an_uninterrupted_run(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = config(world, tmp_path / "whole"), config(world, tmp_path / "broken")
    expected, _ = load_artifact(train(whole), kind="adapter")

    step_once = train_dpo.optimizer_step

    def fail_at_two(*arguments: object) -> dict[str, float]:
        if arguments[5] == 2:
            raise KeyboardInterrupt
        return step_once(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(train_dpo, "optimizer_step", fail_at_two)
    with pytest.raises(KeyboardInterrupt):
        train(broken)
    monkeypatch.setattr(train_dpo, "optimizer_step", step_once)
    assert not (tmp_path / "broken" / "adapter.safetensors").exists()
    with pytest.raises(ValueError, match="--resume"):
        train(broken)
    with pytest.raises(ValueError, match="another beta"):
        train(broken.model_copy(update={"beta": 0.7}), resume=True)
    found, _ = load_artifact(train(broken, resume=True), kind="adapter")
    assert found.keys() == expected.keys()
    assert all(found[name].equal(expected[name]) for name in expected)


def test_micro_batches_take_the_same_steps(world: Path, tmp_path: Path) -> None:
    train(config(world, tmp_path / "one"))
    train(config(world, tmp_path / "two", micro_batch=2))
    for one, two in zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"), strict=True):
        for name in ("loss", "margin", "chosen_error", "rejected_error", "grad_norm"):
            assert two[name] == pytest.approx(one[name], rel=1e-3, abs=1e-4)


def test_the_artifact_names_what_it_was_trained_for(world: Path, tmp_path: Path) -> None:
    path = train(config(world, tmp_path))
    stage_c = load_stage_c(PRESET, world / "stage_c.safetensors")
    spec = load_adapter(stage_c, PRESET, path, encoder_id="random")
    assert spec.base_model == PRESET.base_model
    with pytest.raises(ArtifactError, match="random"):
        load_adapter(stage_c, PRESET, path, encoder_id="another")
    resolved = json.loads((tmp_path / "resolved.json").read_text())
    assert resolved["config"]["beta"] == 0.5
    assert resolved["commit"]


def test_dropped_users_leave_the_reference(world: Path, tmp_path: Path) -> None:
    run = config(world, tmp_path, user_dropout=0.5)
    stage_c = load_stage_c(PRESET, run.stage_c)
    for to_v in stage_c.adapter.to_v:
        torch.nn.init.normal_(to_v.weight)  # type: ignore[arg-type]
    pairs = load_pairs(run.data_dir, "vlm", PRESET.user_emb_dim)
    draws = draw(8, pairs.latent_NCHW.shape[1:], 0, 0, run)
    batch = pairs.batch(torch.arange(8), draws.which_embedding_B)
    dropped = torch.nonzero(draws.keep_user_B == 0).flatten().tolist()
    assert 0 < len(dropped) < 8
    for row in range(8):
        part = slice(row, row + 1)
        one = type(batch)(**{name: value[part] for name, value in vars(batch).items()})
        loss = pair_loss(stage_c, one, draws.rows(part), run)
        assert (loss.margin.item() == 0.0) == (row in dropped)


def test_noise_is_shared_within_a_pair_unless_asked_otherwise(world: Path, tmp_path: Path) -> None:
    shape = torch.Size((16, 8, 8))
    shared = draw(4, shape, 0, 0, config(world, tmp_path))
    apart = draw(4, shape, 0, 0, config(world, tmp_path, shared_noise=False))
    assert shared.noise_chosen_BCHW.equal(shared.noise_rejected_BCHW)
    assert not apart.noise_chosen_BCHW.equal(apart.noise_rejected_BCHW)
    again = draw(4, shape, 0, 0, config(world, tmp_path))
    assert again.t_B.equal(shared.t_B)
    for seed, step in ((0, 1), (1, 0)):
        other = draw(4, shape, seed, step, config(world, tmp_path))
        assert not other.t_B.equal(shared.t_B)
        assert not other.noise_chosen_BCHW.equal(shared.noise_chosen_BCHW)


def test_the_learning_rate_warms_up_and_falls(world: Path, tmp_path: Path) -> None:
    run = config(world, tmp_path, steps=10, warmup_steps=2, lr=1.0)
    rates = [lr_at(step, run) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[-1] == pytest.approx(1 / 8)
    cosine = config(world, tmp_path, steps=10, lr=1.0, lr_schedule="cosine")
    assert lr_at(5, cosine) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": 0.0}, "beta"),
        ({"user_dropout": 1.0}, "user_dropout"),
        ({"micro_batch": 3}, "micro_batch"),
        ({"validation_people": PEOPLE}, "validation_people"),
        ({"batch": 1000}, "do not fill"),
    ],
)
def test_values_that_cannot_train_are_refused(
    world: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(config(world, tmp_path, **change))
