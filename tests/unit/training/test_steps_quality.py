"""What is measured of each picture, on pictures and people whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from ppd_model.presets import get_preset
from training.evaluate.painting import Prompt, Shown
from training.quiz.quizzes import Person
from training.steps_quality import StepsConfig, Variant, gradient_p99, measure, summary
from training.world.scene import LOOKS

L = len(LOOKS)


def config(**given: object) -> StepsConfig:
    values = {"out": "unused", "people": 4, "group": 2, "prompts": 2, "bound_people": 2}
    return StepsConfig.model_validate(values | given)


def shown(looks_BL: np.ndarray, named_B: list[int]) -> Shown:
    images = np.random.default_rng(0).integers(0, 256, (len(looks_BL), 4, 4, 3), np.uint8)
    return Shown(images, looks_BL.astype(np.float32), np.array(named_B))


def test_a_variant_is_read_from_its_name() -> None:
    whole = Variant.parse("dpm++2m-sde:8:0.3-1:dpm++2m:3")
    assert (whole.solver, whole.steps, whole.guidance_interval) == ("dpm++2m-sde", 8, (0.3, 1))
    decoded = whole.of(get_preset("mini"))
    assert (decoded.stage_b_solver, decoded.stage_b_steps) == ("dpm++2m", 3)
    plain = Variant.parse("ddpm:20")
    assert (plain.guidance_interval, plain.of(get_preset("mini"))) == ((0, 1), get_preset("mini"))
    for wrong in ("euler:20", "ddpm", "ddpm:x", "ddpm:20:0.3", "ddpm:20:0-1:ddpm"):
        with pytest.raises(ValueError, match="expected SOLVER:STEPS"):
            Variant.parse(wrong)


def test_an_edge_of_100_levels_is_the_gradient_of_a_picture_with_many() -> None:
    stripes = np.zeros((1, 8, 8, 3), np.uint8)
    stripes[:, :, ::2] = 100
    assert gradient_p99(stripes) == pytest.approx([100], abs=1e-3)
    assert gradient_p99(np.full((2, 8, 8, 3), 50, np.uint8)).tolist() == [0, 0]


def test_each_picture_is_held_against_the_bases_of_its_own_group() -> None:
    taste_L = np.eye(L)[0]
    people = [Person(taste_L, [], np.zeros((4, L)), np.zeros(4, int)) for _ in range(4)]
    prompts_GK = [[Prompt("", 1, 0), Prompt("", 2, 1)], [Prompt("", 3, 2), Prompt("", 4, 3)]]
    base = shown(np.zeros((4, L)), [1, 2, 3, 0])  # the last shows what it should not
    base.looks[2:, 0] = 1  # the second group's base has the look already
    own = shown(np.full((8, L), 0.5), [1, 0, 1, 2, 3, 4, 3, 4])
    measured = measure(people, own, base, prompts_GK, config())
    assert measured.wins.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert measured.gain_sd.tolist() == [0.5] * 4 + [-0.5] * 4
    assert measured.base_right.tolist() == [1, 1, 1, 1, 1, 0, 1, 0]
    assert measured.own_right.tolist() == [1, 0, 1, 1, 1, 1, 1, 1]
    found = summary(measured, measured, config())
    assert found["kept"]["mean"] == pytest.approx(5 / 6)
    assert found["against_reference"]["wins"]["mean"] == 0
