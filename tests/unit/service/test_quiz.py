"""The first quiz spreads over the looks, and differs a little between people."""

import numpy as np

from service.core.pool import Pair, PairImage
from service.core.quiz import needed, next_pairs, sides

LOOKS = 4


def pair(pair_id: str, delta_L: list[float], caption: str | None = None) -> Pair:
    images = (PairImage(f"{pair_id}-a.webp", "a"), PairImage(f"{pair_id}-b.webp", "b"))
    return Pair(pair_id, caption or pair_id, images, tuple(delta_L))


def along(axis: int, length: float = 2.0) -> list[float]:
    return [length if i == axis else 0.0 for i in range(LOOKS)]


def test_four_picks_cover_four_looks_though_one_look_fills_the_pool() -> None:
    pool = [pair(f"many-{i}", along(0, 3.0)) for i in range(10)]
    pool += [pair(f"axis-{axis}", along(axis)) for axis in (1, 2, 3)]
    picked = next_pairs(pool, set(), "default/ann", 4)
    covered = {int(np.argmax(np.abs(p.look_delta_L))) for p in picked}
    assert covered == {0, 1, 2, 3}


def test_picks_tell_more_than_picks_by_chance() -> None:
    rng = np.random.default_rng(0)
    pool = [pair(f"p{i}", rng.normal(size=LOOKS).tolist()) for i in range(64)]

    def volume(picked: list[Pair]) -> float:
        deltas_PL = np.array([p.look_delta_L for p in picked])
        return float(np.linalg.slogdet(deltas_PL.T @ deltas_PL + 0.5 * np.eye(LOOKS))[1])

    chosen = [volume(next_pairs(pool, set(), f"t/{i}", 4)) for i in range(20)]
    by_chance = [volume([pool[j] for j in rng.choice(64, 4, replace=False)]) for _ in range(200)]
    assert min(chosen) > np.quantile(by_chance, 0.9)


def test_answered_pairs_are_not_asked_again_and_the_rest_stays() -> None:
    rng = np.random.default_rng(1)
    pool = [pair(f"p{i}", rng.normal(size=LOOKS).tolist()) for i in range(40)]
    first = next_pairs(pool, set(), "default/ann", 4)
    for done in range(1, 4):
        answered = {p.pair_id for p in first[:done]}
        assert next_pairs(pool, answered, "default/ann", 4 - done) == first[done:]
    everything = {p.pair_id for p in pool}
    assert next_pairs(pool, everything, "default/ann", 4) == []


def test_captions_are_not_repeated_while_there_are_others() -> None:
    rng = np.random.default_rng(2)
    pool = [pair(f"p{i}", rng.normal(size=LOOKS).tolist(), f"caption {i % 5}") for i in range(40)]
    for person in ("a", "b", "c"):
        assert len({p.caption for p in next_pairs(pool, set(), person, 4)}) == 4


def test_people_differ_in_pairs_and_sides() -> None:
    rng = np.random.default_rng(3)
    pool = [pair(f"p{i}", rng.normal(size=LOOKS).tolist()) for i in range(64)]
    people = [f"default/{i}" for i in range(20)]
    assert len({tuple(p.pair_id for p in next_pairs(pool, set(), m, 4)) for m in people}) > 10
    swapped = sum(sides(m, p.pair_id) == (1, 0) for m in people for p in pool)
    assert 0.4 < swapped / (20 * 64) < 0.6


def test_ties_leave_the_need_where_it_was() -> None:
    assert [needed(decided) for decided in range(6)] == [4, 3, 2, 1, 0, 0]
