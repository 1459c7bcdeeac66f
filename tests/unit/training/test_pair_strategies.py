"""Which pair is asked next, against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from training.quiz.pair_strategies import (
    Asked,
    QuizPool,
    QuizRules,
    Strategy,
    active_gain,
    answer_to,
    best_of,
    entropy,
    estimates,
    information,
    likelihood,
    new_captions,
    oracle_gain,
    play,
    spread_gain,
)

NOTHING = Asked([], [])
ASKING = QuizRules(answers=6, near_best=0.9, tie_below=0.1, oracle_samples=200)


def pool(pairs: int = 40, looks: int = 4) -> QuizPool:
    rng = np.random.default_rng(0)
    looks_PL = 2 * rng.normal(size=(pairs, looks))
    return QuizPool(
        pair_ids=[f"p{i}" for i in range(pairs)],
        captions=[f"caption {i % 20}" for i in range(pairs)],
        images=[],
        looks_PL=looks_PL,
        coordinates_PK=looks_PL.copy(),
    )


def tastes(count: int, looks: int = 4) -> np.ndarray:
    taste_UL = np.random.default_rng(1).normal(size=(count, looks))
    return taste_UL / np.linalg.norm(taste_UL, axis=1, keepdims=True)


def test_an_answer_that_is_known_beforehand_tells_nothing() -> None:
    assert information(np.array([3.0]), np.array([0.0])) == pytest.approx([0.0], abs=1e-9)


def test_an_answer_of_a_wide_margin_tells_almost_one_bit() -> None:
    told = information(np.zeros(3), np.array([0.1, 2.0, 200.0]))
    assert (np.diff(told) > 0).all()
    assert told[0] == pytest.approx(0.1**2 / 8, rel=0.05)  # small margins: variance / 8 nats
    assert told[2] == pytest.approx(np.log(2), rel=0.05)


def test_entropy_is_largest_at_one_half() -> None:
    assert entropy(np.array([0.0, 0.5, 1.0])) == pytest.approx([0, np.log(2), 0], abs=1e-9)


def test_both_designs_turn_to_what_was_not_asked_yet() -> None:
    delta_PK = np.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 1.5]])
    asked = Asked([0, 1], [1, 1])
    for gain in (spread_gain(delta_PK, asked, [2, 3]), active_gain(delta_PK, asked, [2, 3])):
        assert gain[1] > gain[0]
    assert spread_gain(delta_PK, NOTHING, [2, 3])[0] > spread_gain(delta_PK, NOTHING, [2, 3])[1]


def test_only_the_active_design_looks_at_the_answers() -> None:
    delta_PK = np.array([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [1.0, 1.0]])
    sure, unsure = Asked([0, 1], [1, 1]), Asked([0, 1], [1, 0])
    assert spread_gain(delta_PK, sure, [2]) == spread_gain(delta_PK, unsure, [2])
    assert active_gain(delta_PK, unsure, [2]) > active_gain(delta_PK, sure, [2])


def test_the_first_of_nearly_the_best_is_asked() -> None:
    gain = np.array([0.5, 0.91, 1.0, 0.95])
    assert best_of([7, 8, 9, 10], gain, near_best=0.9) == 8
    assert best_of([7, 8, 9, 10], gain) == 9


def test_new_captions_come_first_while_there_are_any() -> None:
    captions = ["a", "a", "b"]
    gain = new_captions(captions, Asked([0], [1]), [1, 2], np.array([2.0, 1.0]))
    assert best_of([1, 2], gain) == 2
    assert best_of([1], new_captions(captions, Asked([0], [1]), [1], np.array([2.0]))) == 1


@pytest.mark.parametrize("strategy", ["random", "spread", "active", "oracle", "served_first"])
def test_a_quiz_has_so_many_decided_answers_and_no_pair_twice(strategy: Strategy) -> None:
    prior = tastes(500)
    quiz = play(strategy, pool(), tastes(1)[0], 3, prior, ASKING)
    assert len(quiz.decided()[0]) == ASKING.answers
    assert len(set(quiz.pairs)) == len(quiz.pairs)
    assert quiz == play(strategy, pool(), tastes(1)[0], 3, prior, ASKING)


def test_asking_actively_beats_asking_at_random() -> None:
    asked_pool, prior, taste_UL = pool(), tastes(600), tastes(40)
    cosine = {}
    strategies: tuple[Strategy, ...] = ("random", "active", "oracle")
    for strategy in strategies:
        quizzes = [
            play(strategy, asked_pool, taste_L, seed, prior, ASKING)
            for seed, taste_L in enumerate(taste_UL)
        ]
        found_UNL = estimates(quizzes, asked_pool, prior, ASKING.answers)
        found_UL = found_UNL[:, 2] / np.linalg.norm(found_UNL[:, 2], axis=1, keepdims=True)
        cosine[strategy] = float((found_UL * taste_UL).sum(1).mean())
    assert cosine["active"] > cosine["random"] + 0.03
    assert cosine["oracle"] > cosine["random"] + 0.03


def test_a_person_answers_a_pair_the_same_whoever_asks() -> None:
    asked_pool, taste_L = pool(), tastes(1)[0]
    once = [answer_to(pair, asked_pool, taste_L, 5, 0.1) for pair in range(40)]
    again = [answer_to(pair, asked_pool, taste_L, 5, 0.1) for pair in reversed(range(40))]
    assert once == again[::-1]
    assert {0, 1} <= set(once)
    assert answer_to(0, asked_pool, np.zeros(4), 5, 0.1) is None


def test_a_pool_that_is_too_small_is_an_error() -> None:
    with pytest.raises(ValueError, match="no pair of 5 is left"):
        play("random", pool(pairs=5), tastes(1)[0], 0, tastes(50), ASKING)


def test_answers_weigh_the_tastes_that_gave_them() -> None:
    prior = np.array([[1.0, 0.0], [-1.0, 0.0]])
    weight = likelihood(np.array([[2.0, 0.0]]), np.array([1]), prior)
    assert weight.sum() == pytest.approx(1)
    assert weight[0] == pytest.approx(1 / (1 + np.exp(-4.0)))


def test_the_oracle_asks_where_the_population_differs() -> None:
    prior = np.repeat([[1.0, 0.0], [-1.0, 0.0]], 100, axis=0)
    looks = np.array([[2.0, 0.0], [0.0, 5.0]])
    gain = oracle_gain(looks, NOTHING, [0, 1], prior, 200, np.random.default_rng(0))
    assert gain[0] > 0.3
    assert gain[1] == pytest.approx(0, abs=1e-6)
