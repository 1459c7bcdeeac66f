"""Adapters that are trained side by side, and vectors that are learned for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_training import PEOPLE, PRESET, tiny_config, tiny_parts, write_world
from training.dpo.dpo_config import DpoConfig
from training.rivals import together
from training.rivals.fitted_people import fit_weights
from training.rivals.together import train_together
from training.train_dpo import make_model, read_pairs, train

KINDS: dict[str, dict[str, object]] = {
    "nft": {"objective": "nft"},
    "ppd": {"objective": "ppd"},
    "sft": {"objective": "sft"},
    "diffusion_dpo": {"objective": "diffusion_dpo", "user": "none"},
    "learned": {"objective": "nft", "user": "learned"},
}


@pytest.fixture(autouse=True)
def _tiny() -> Iterator[None]:
    with tiny_parts():
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


def configs(world: Path, out: Path, **changes: object) -> dict[str, DpoConfig]:
    return {
        name: tiny_config(
            world, out / name, **(kind | {"user_dropout": 0.0, "ema_decay": 0.5} | changes)
        )
        for name, kind in KINDS.items()
    }


def assert_same_files(one: Path, other: Path) -> None:
    for name in ("adapter.safetensors", "people.safetensors"):
        assert (one / name).exists() == (other / name).exists()
        if (one / name).exists():
            kept, found = load_file(one / name), load_file(other / name)
            assert kept.keys() == found.keys()
            for key, value in kept.items():
                assert value.equal(found[key]), key


def test_each_adapter_ends_as_if_it_were_trained_alone(world: Path, tmp_path: Path) -> None:
    beside = configs(world, tmp_path / "beside")
    train_together([(config, read_pairs(config)) for config in beside.values()])
    for name, config in configs(world, tmp_path / "alone").items():
        train(config)
        assert_same_files(config.output_dir, beside[name].output_dir)


def test_an_interrupted_training_goes_on(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = configs(world, tmp_path / "whole"), configs(world, tmp_path / "broken")
    train_together([(config, read_pairs(config)) for config in whole.values()])
    take_step = together.take_step

    def stops(model: object, runs: object, rows_R: object, step: int) -> object:
        if step == 2:
            raise KeyboardInterrupt
        return take_step(model, runs, rows_R, step)  # type: ignore[arg-type]

    wanted = [(config, read_pairs(config)) for config in broken.values()]
    with monkeypatch.context() as patch:
        patch.setattr(together, "take_step", stops)
        with pytest.raises(KeyboardInterrupt):
            train_together(wanted)
    train_together([(config, read_pairs(config)) for config in broken.values()])
    for name, config in whole.items():
        assert_same_files(config.output_dir, broken[name].output_dir)


def test_a_vector_is_learned_for_each_person_and_kept_beside_the_adapter(
    world: Path, tmp_path: Path
) -> None:
    config = configs(world, tmp_path)["learned"]
    train(config)
    known_UD = load_file(config.output_dir / "people.safetensors")["people_UD"]
    assert known_UD.shape == (PEOPLE, PRESET.user_emb_dim)
    assert "people_UD" not in load_file(config.output_dir / "adapter.safetensors")
    small = tiny_config(world, tmp_path / "still", **(KINDS["learned"] | {"user_dropout": 0.0}))
    train(small.model_copy(update={"lr": 1e-12}))
    start_UD = load_file(tmp_path / "still" / "people.safetensors")["people_UD"]
    met = torch.arange(PEOPLE) < PEOPLE - config.validation_people
    moved_U = (known_UD - start_UD).abs().amax(1)
    assert moved_U[met].min() > 10 * moved_U[~met].max()


def test_who_answers_the_other_way_gets_the_opposite_weights(world: Path, tmp_path: Path) -> None:
    config = tiny_config(world, tmp_path, objective="nft", user_dropout=0.0)
    pairs = read_pairs(config)
    model, _ = make_model(config, pairs, torch.device("cpu"))
    for weight in model.stage_c.adapter.to_v.parameters():
        torch.nn.init.normal_(weight, std=0.001)
    model.stage_c.adapter.requires_grad_(False)
    answered = pairs.batch(torch.arange(12), torch.zeros(12))
    turned = replace(
        answered, chosen_BCHW=answered.rejected_BCHW, rejected_BCHW=answered.chosen_BCHW
    )
    torch.manual_seed(0)
    directions_RD = 0.05 * torch.randn(3, PRESET.user_emb_dim)
    mean_D = torch.randn(PRESET.user_emb_dim)
    one_UR, other_UR = (
        fit_weights(model, config, each, mean_D, directions_RD) for each in (answered, turned)
    )
    assert one_UR.shape == (3, 3)
    assert float(one_UR.square().mean()) == pytest.approx(1)
    assert float(torch.cosine_similarity(one_UR.flatten(), other_UR.flatten(), dim=0)) < -0.8


@pytest.mark.parametrize(
    ("change", "said"),
    [({"batch": 2}, "another batch"), ({"min_time": 0.5}, "another min_time")],
)
def test_runs_that_draw_differently_are_refused(
    world: Path, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    one = configs(world, tmp_path)["nft"]
    other = configs(world, tmp_path, **change)["ppd"]
    with pytest.raises(ValueError, match=said):
        train_together([(config, read_pairs(config)) for config in (one, other)])


def test_dropped_users_are_refused(world: Path, tmp_path: Path) -> None:
    config = tiny_config(world, tmp_path, objective="nft", user_dropout=0.1)
    with pytest.raises(ValueError, match="dropout"):
        train_together([(config, read_pairs(config))])
