"""The recipes: they can train, hold the paper's numbers, and baselines see the same draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ppd_model.presets import get_preset
from training.dpo.dpo_config import DpoConfig
from training.jobs.configuration import read_configuration
from training.precompute.precompute_config import PrecomputeConfig

CONFIGS = Path(__file__).parents[3] / "training" / "configs"
PAPER = {"synthetic": (1e-5, "one_hot"), "real": (3e-6, "vlm")}
OBJECTIVES = [
    {},
    {"objective": "nft"},
    {"objective": "diffusion_dpo", "user": "none", "user_dropout": 0.0},
    {"objective": "sft"},
    {"objective": "mapo"},
    {"objective": "mapo", "user": "none", "user_dropout": 0.0},
    {"objective": "dspo"},
    {"objective": "dspo", "user": "none", "user_dropout": 0.0},
    {"objective": "diffusion_dpo", "user": "none", "user_dropout": 0.0, "only_person": 0},
]


def recipe(name: str, **overrides: Any) -> DpoConfig:
    return read_configuration(DpoConfig, CONFIGS / f"{name}.yaml", overrides)


@pytest.mark.parametrize("preset", ["stable-cascade-1b", "stable-cascade"])
@pytest.mark.parametrize("experiment", ["synthetic", "real"])
def test_the_papers_recipes_hold_the_papers_numbers(
    preset: str, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPD_PRESET", preset)
    name = f"stable_cascade_dpo_{experiment}"
    found = recipe(name)
    assert get_preset(found.preset).name == preset
    assert preset in found.output_dir.parts
    assert (found.lr, found.user) == PAPER[experiment]
    assert (found.batch, found.epochs, found.objective) == (768, 1, "ppd")
    assert 0.1 <= found.beta <= 2
    assert (found.shared_noise, found.shared_timestep) == (False, True)
    assert found.batch == 8 * 6 * (found.micro_batch or 0)
    assert found.centre_users is (experiment == "synthetic")  # which has nothing to centre
    for overrides in OBJECTIVES:
        recipe(name, **overrides)


def test_pick_a_pic_is_divided_and_read_as_in_the_paper() -> None:
    real = read_configuration(PrecomputeConfig, CONFIGS / "pickapic_precompute.yaml", {})
    assert (real.held_out, real.unseen_people, real.seen_people) == ("people", 192, 277)
    assert (real.test_captions, real.decoding, real.prompt_variant) == (1, "sample", "paper")
    name = "pickapic_synthetic_precompute.yaml"
    synthetic = read_configuration(PrecomputeConfig, CONFIGS / name, {})
    assert (synthetic.support_sets, synthetic.vlm) == (0, False)
    assert (synthetic.unseen_people, synthetic.seen_people) == (0, 0)
    assert "validation_unique" in str(synthetic.validation_data)


@pytest.mark.parametrize(
    "name",
    [
        "mini_dpo",
        "mini_dpo_taste",
        "mini_dpo_posterior",
        "mini_diffusion_dpo",
        "mini_sft",
        "mini_nft",
    ],
)
def test_the_recipes_of_mini_can_train(name: str) -> None:
    recipe(name)


@pytest.mark.parametrize("name", ["mini_diffusion_dpo", "mini_sft"])
def test_the_baselines_of_mini_see_the_same_draws(name: str) -> None:
    ppd, baseline = recipe("mini_dpo").comparable(), recipe(name).comparable()
    times = ("shared_timestep", "min_time", "max_time", "time_power")
    draws = ("seed", "batch", "shared_noise", *times)
    assert {key: baseline[key] for key in draws} == {key: ppd[key] for key in draws}
