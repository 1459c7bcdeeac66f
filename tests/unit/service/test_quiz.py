"""The quiz asks what tells most given the answers so far, and differs a little between people."""

import time

import numpy as np
import pytest

from service.core.pool import Pair, PairImage
from service.core.quiz import NEAR_BEST, after, needed, next_pairs, sides
from training.quiz.pair_strategies import Asked, active_gain, best_of, new_captions

LOOKS = 4


def pair(pair_id: str, delta_L: list[float], caption: str | None = None) -> Pair:
    images = (PairImage(f"{pair_id}-a.webp", "a"), PairImage(f"{pair_id}-b.webp", "b"))
    return Pair(pair_id, caption or pair_id, images, tuple(delta_L))


def along(axis: int, length: float = 2.0) -> list[float]:
    return [length if i == axis else 0.0 for i in range(LOOKS)]


def test_four_picks_cover_four_looks_though_one_look_fills_the_pool() -> None:
    pool = [pair(f"many-{i}", along(0, 3.0)) for i in range(10)]
    pool += [pair(f"axis-{axis}", along(axis)) for axis in (1, 2, 3)]
    picked = next_pairs(pool, {}, "default/ann", 4)
    covered = {int(np.argmax(np.abs(p.look_delta_L))) for p in picked}
    assert covered == {0, 1, 2, 3}


def test_picks_tell_more_than_picks_by_chance() -> None:
    rng = np.random.default_rng(0)
    pool = [pair(f"p{i}", rng.normal(size=LOOKS).tolist()) for i in range(64)]

    def volume(picked: list[Pair]) -> float:
        deltas_PL = np.array([p.look_delta_L for p in picked])
        return float(np.linalg.slogdet(deltas_PL.T @ deltas_PL + 0.5 * np.eye(LOOKS))[1])

    chosen = [volume(next_pairs(pool, {}, f"t/{i}", 4)) for i in range(20)]
    by_chance = [volume([pool[j] for j in rng.choice(64, 4, replace=False)]) for _ in range(200)]
    assert min(chosen) > np.quantile(by_chance, 0.8)
    assert np.median(chosen) > np.quantile(by_chance, 0.95)


def test_answers_decide_what_is_asked_next() -> None:
    """Someone sure of the first axis is asked about the second; someone who contradicts themself
    along the first is asked about it again."""
    pool = [pair(f"first-{i}", along(0, 4.0)) for i in range(6)]
    pool += [pair("second", along(1, 1.2))]
    sure = {f"first-{i}": 1 for i in range(4)}
    unsure = {f"first-{i}": i % 2 for i in range(2)}
    assert next_pairs(pool, sure, "default/ann", 1)[0].pair_id == "second"
    assert next_pairs(pool, unsure, "default/ann", 1)[0].pair_id.startswith("first")


def test_no_preference_says_that_a_difference_does_not_matter() -> None:
    pool = [pair(f"first-{i}", along(0, 3.0)) for i in range(6)] + [pair("second", along(1, 2.0))]
    tied = {"first-0": None, "first-1": None}
    asked = next_pairs(pool, tied, "default/ann", 7)
    assert asked[0].pair_id == "second"
    assert not {p.pair_id for p in asked} & set(tied)


def test_the_rest_is_planned_as_if_answered_as_expected() -> None:
    """Four fetched at once are no four of the same."""
    pool = [pair(f"first-{i}", along(0, 3.0)) for i in range(6)]
    pool += [pair(f"axis-{axis}", along(axis, 2.0)) for axis in (1, 2, 3)]
    planned = next_pairs(pool, {"first-0": 1}, "default/ann", 4)
    assert {p.pair_id for p in planned} >= {"axis-1", "axis-2", "axis-3"}


def test_the_served_quiz_asks_what_the_experiment_measured() -> None:
    rng = np.random.default_rng(5)
    pool = [pair(f"p{i}", rng.normal(size=LOOKS).tolist(), f"caption {i % 30}") for i in range(60)]
    order = next_pairs_order(pool, "default/ann")
    answers: dict[str, int | None] = {}
    for number in range(8):
        (served,) = next_pairs(pool, answers, "default/ann", 1)
        left = [i for i in order if pool[i].pair_id not in answers]
        places = [i for i in range(60) if pool[i].pair_id in answers]
        asked = Asked(places, [answers[pool[i].pair_id] for i in places])
        delta_PK = np.array([p.look_delta_L for p in pool])
        gain_P = new_captions(
            [p.caption for p in pool], asked, left, active_gain(delta_PK, asked, left)
        )
        assert served is pool[best_of(left, gain_P, NEAR_BEST)]
        answers[served.pair_id] = (1, 0, None)[number % 3]


def next_pairs_order(pool: list[Pair], person: str) -> list[int]:
    """The order of a person's own: that in which pairs come that all tell nothing."""
    nothing = [pair(p.pair_id, [0.0] * LOOKS) for p in pool]
    place = {p.pair_id: i for i, p in enumerate(pool)}
    return [place[p.pair_id] for p in next_pairs(nothing, {}, person, len(pool))]


def test_it_takes_a_few_milliseconds_with_a_hundred_pairs() -> None:
    rng = np.random.default_rng(6)
    pool = [pair(f"p{i}", rng.normal(size=8).tolist()) for i in range(100)]
    answers = {p.pair_id: 1 for p in pool[:20]}
    next_pairs(pool, answers, "default/ann", 4)
    started_s = time.process_time()
    for _ in range(10):
        next_pairs(pool, answers, "default/ann", 4)
    assert (time.process_time() - started_s) / 10 < 0.05


def test_answers_of_pairs_that_the_pool_no_longer_has_are_left_out() -> None:
    pool = [pair(f"p{i}", along(i % LOOKS)) for i in range(8)]
    assert next_pairs(pool, {"gone": 1}, "a", 3) == next_pairs(pool, {}, "a", 3)


@pytest.mark.parametrize("person", ["a", "b"])
def test_the_same_answers_give_the_same_pairs(person: str) -> None:
    rng = np.random.default_rng(7)
    pool = [pair(f"p{i}", rng.normal(size=LOOKS).tolist()) for i in range(30)]
    answers = {"p3": 0, "p4": 1}
    backwards = dict(reversed(answers.items()))
    assert next_pairs(pool, answers, person, 4) == next_pairs(pool, backwards, person, 4)


def test_answered_pairs_are_not_asked_again_and_all_others_are() -> None:
    rng = np.random.default_rng(1)
    pool = [pair(f"p{i}", rng.normal(size=LOOKS).tolist()) for i in range(40)]
    first = next_pairs(pool, {}, "default/ann", 4)
    for done in range(1, 4):
        answered = {p.pair_id: 1 for p in first[:done]}
        next_ones = next_pairs(pool, answered, "default/ann", len(pool))
        assert {p.pair_id for p in next_ones} == {p.pair_id for p in pool} - set(answered)
    everything = {p.pair_id: None for p in pool}
    assert next_pairs(pool, everything, "default/ann", 4) == []


def test_captions_are_not_repeated_while_there_are_others() -> None:
    rng = np.random.default_rng(2)
    pool = [pair(f"p{i}", rng.normal(size=LOOKS).tolist(), f"caption {i % 5}") for i in range(40)]
    for person in ("a", "b", "c"):
        assert len({p.caption for p in next_pairs(pool, {}, person, 4)}) == 4


def test_people_differ_in_pairs_and_sides() -> None:
    rng = np.random.default_rng(3)
    pool = [pair(f"p{i}", rng.normal(size=LOOKS).tolist()) for i in range(64)]
    people = [f"default/{i}" for i in range(20)]
    assert len({tuple(p.pair_id for p in next_pairs(pool, {}, m, 4)) for m in people}) > 10
    swapped = sum(sides(m, p.pair_id) == (1, 0) for m in people for p in pool)
    assert 0.4 < swapped / (20 * 64) < 0.6


def test_ties_leave_the_need_where_it_was() -> None:
    assert [needed(decided) for decided in range(6)] == [4, 3, 2, 1, 0, 0]


def test_what_comes_after_any_answer_is_foreseen() -> None:
    rng = np.random.default_rng(5)
    pool = [pair(f"p{i}", rng.normal(size=LOOKS).tolist()) for i in range(40)]
    answers: dict[str, int | None] = {"p1": 0, "p2": 1, "p3": 1}
    first = next_pairs(pool, answers, "default/ann", 1)[0]
    foreseen = after(first, pool, answers, "default/ann")
    for answer in (0, 1, None):
        given = {**answers, first.pair_id: answer}
        assert next_pairs(pool, given, "default/ann", 1)[0] in foreseen
    assert len(foreseen) == len({p.pair_id for p in foreseen}) <= 3
