"""Tastes of a population, found again from what it chose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training.quiz.taste_model import TasteSpace, fit, held_out_accuracy

FloatArray = NDArray[np.float64]


def population(people: int, pairs: int, rng: np.random.Generator) -> tuple[FloatArray, ...]:
    """Six features, of which people care for the first two only; unequal scales throughout."""
    taste_UF = rng.normal(size=(people, 6)) * np.array([3.0, 1.5, 0, 0, 0, 0])
    delta_PF = rng.normal(size=(people * pairs, 6))
    person_P = np.repeat(np.arange(people), pairs)
    margin_P = (taste_UF[person_P] * delta_PF).sum(1)
    preferred_P = (rng.random(len(margin_P)) < 1 / (1 + np.exp(-margin_P))).astype(np.int64)
    return delta_PF * np.array([1, 10, 0.1, 1, 5, 1]), preferred_P, person_P


def test_the_coordinates_are_what_people_differ_in() -> None:
    rng = np.random.default_rng(0)
    delta_PF, preferred_P, person_P = population(60, 30, rng)
    space = fit(delta_PF, preferred_P, person_P, reduced=6, dimensions=2, rounds=10)
    scaled = space.basis_FK * np.array([1, 10, 0.1, 1, 5, 1])[:, None]
    share = (scaled[:2] ** 2).sum() / (scaled**2).sum()
    assert share > 0.95
    assert np.linalg.norm(scaled, axis=0) == pytest.approx([3.0, 1.5], rel=0.35)
    assert np.linalg.norm(space.mean_K) < 0.5
    told = held_out_accuracy(space.coordinates(delta_PF), preferred_P, person_P)
    few, many = told["told_4"], told["told_nine_tenths"]
    assert few is not None
    assert many is not None
    assert many > few > 0.6
    alone = held_out_accuracy(space.coordinates(delta_PF[:4]), preferred_P[:4], person_P[:4])
    assert alone["told_4"] is None


def test_what_all_have_in_common_is_the_mean() -> None:
    rng = np.random.default_rng(1)
    delta_PF = rng.normal(size=(1600, 2))
    taste_UF = np.array([2.0, 0.0]) + 0.5 * rng.normal(size=(40, 2))
    person_P = np.repeat(np.arange(40), 40)
    margin_P = (taste_UF[person_P] * delta_PF).sum(1)
    preferred_P = (rng.random(1600) < 1 / (1 + np.exp(-margin_P))).astype(np.int64)
    space = fit(delta_PF, preferred_P, person_P, reduced=2, dimensions=2, rounds=12)
    in_features = space.basis_FK @ space.mean_K
    assert in_features == pytest.approx([2.0, 0.0], abs=0.5)


def test_a_space_is_read_as_it_was_written(tmp_path: Path) -> None:
    space = TasteSpace(np.arange(6.0).reshape(3, 2), np.array([0.5, 1.0]))
    space.save(tmp_path / "space.safetensors")
    back = TasteSpace.load(tmp_path / "space.safetensors")
    assert (back.basis_FK == space.basis_FK).all()
    assert (back.mean_K == space.mean_K).all()
