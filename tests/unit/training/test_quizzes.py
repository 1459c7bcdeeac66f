"""Four choices of a simulated person: of random pairs, or of those that the service asks."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ppd_model.pipeline import MINI_WEIGHTS_DIR
from service.core.quiz import NEAR_BEST as NEAR_BEST_SERVED
from training.quiz.pair_strategies import Asked, active_gain, new_captions
from training.quiz.quizzes import (
    NEAR_BEST,
    POOL_DIR,
    Quiz,
    QuizName,
    ServedPairs,
    load_quiz_pool,
    make_quiz,
)
from training.rewards.world_rewards import content_named
from training.world import tastes
from training.world.looks import Standardizer

STANDARDIZER = Standardizer.load(MINI_WEIGHTS_DIR / "standardizer.json")


@pytest.fixture(scope="module", params=["random", "served"])
def quiz(request: pytest.FixtureRequest) -> Quiz:
    name: QuizName = request.param
    return make_quiz(name, STANDARDIZER.looks, tie_below=0.1)


def test_the_same_person_gives_the_same_four_decided_choices(quiz: Quiz) -> None:
    taste_L = tastes.single_look(3, 1.0)
    first, again, other = (quiz(taste_L, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first.preferred_4.tolist() == again.preferred_4.tolist()
    assert np.array_equal(first.delta_4L, again.delta_4L)
    assert not np.array_equal(first.delta_4L, other.delta_4L)
    margin_4 = tastes.CHOICE_SCALE * first.delta_4L @ taste_L
    assert (np.abs(margin_4) >= 0.1).all()
    assert [choice.preferred for choice in first.choices] == first.preferred_4.tolist()
    for choice, delta_L in zip(first.choices, first.delta_4L, strict=True):
        content = content_named(choice.caption)
        shown = np.stack([np.asarray(choice.image_0), np.asarray(choice.image_1)])
        looks_2L = STANDARDIZER.looks(shown, np.full(2, content))
        assert np.allclose(looks_2L[1] - looks_2L[0], delta_L, atol=1e-5)


def test_people_choose_what_they_like(quiz: Quiz) -> None:
    agreed = []
    for seed in range(12):
        taste_L = tastes.single_look(seed % 8, 1.0 if seed % 2 else -1.0)
        person = quiz(taste_L, np.random.default_rng(seed))
        agreed += ((person.delta_4L @ taste_L > 0) == (person.preferred_4 == 1)).tolist()
    assert np.mean(agreed) > 0.65


def test_the_pool_is_asked_in_the_coordinates_it_is_shipped_with() -> None:
    pool = load_quiz_pool(POOL_DIR, STANDARDIZER.looks)
    pairs = json.loads((POOL_DIR / "pairs.json").read_text())["pairs"]
    assert pool.coordinates_PK.tolist() == [pair["look_delta"] for pair in pairs]
    other = load_quiz_pool(POOL_DIR, STANDARDIZER.looks, pool.coordinates_PK[:, :2])
    assert other.coordinates_PK.shape == (len(pairs), 2)
    assert NEAR_BEST == NEAR_BEST_SERVED


def test_served_pairs_tell_nearly_the_most_that_any_pair_would() -> None:
    pool = load_quiz_pool(POOL_DIR, STANDARDIZER.looks)
    person = ServedPairs(pool, 0.0)(tastes.single_look(3, 1.0), np.random.default_rng(4))
    asked = Asked([], [])
    for choice, delta_L in zip(person.choices, person.delta_4L, strict=True):
        pair = int(np.flatnonzero((pool.looks_PL.astype(np.float32) == delta_L).all(1))[0])
        left = [other for other in range(len(pool.pair_ids)) if other not in asked.pairs]
        gain_P = active_gain(pool.coordinates_PK, asked, left)
        gain_P = new_captions(pool.captions, asked, left, gain_P)
        assert gain_P[left.index(pair)] >= NEAR_BEST * gain_P.max()
        asked.pairs.append(pair)
        asked.answers.append(choice.preferred)
    assert len(asked.pairs) == 4
