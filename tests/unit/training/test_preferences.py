"""Simulated people answer pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from training.preferences import SPLIT_SEEDS, answer, person_seeds, simulate, taste_of
from training.world import users
from training.world.scene import LOOKS

L = len(LOOKS)


class FewPictures:
    """Three contents of 40 pictures with random looks, one content with a single picture."""

    def __init__(self) -> None:
        self.looks = np.random.default_rng(0).normal(size=(121, L)).astype(np.float32)

    def by_content(self) -> list[np.ndarray]:
        return [np.arange(c * 40, c * 40 + 40) for c in range(3)] + [np.array([120])]


def bright_lover() -> np.ndarray:
    return users.single_look(0, 1.0)


def test_support_pictures_are_never_in_query_pairs() -> None:
    person = simulate(7, bright_lover(), FewPictures(), support_sets=3, query_pairs=60)
    assert person.support_pictures_E42.shape == (3, 4, 2)
    support = set(person.support_pictures_E42.ravel().tolist())
    assert len(support) == 24
    assert support.isdisjoint(person.chosen_P.tolist() + person.rejected_P.tolist())
    assert len(person.chosen_P) == len(person.rejected_P) == 60


def test_both_pictures_of_a_pair_show_the_same_content() -> None:
    person = simulate(7, bright_lover(), FewPictures(), support_sets=2, query_pairs=30)
    pairs = [*person.support_pictures_E42.reshape(-1, 2).tolist()]
    pairs += np.stack([person.chosen_P, person.rejected_P], 1).tolist()
    assert all(a // 40 == b // 40 and a != b for a, b in pairs)


def test_the_chosen_picture_is_the_preferred_one_on_most_pairs() -> None:
    pictures = FewPictures()
    person = simulate(1, bright_lover(), pictures, support_sets=1, query_pairs=300)
    gain = pictures.looks[person.chosen_P, 0] - pictures.looks[person.rejected_P, 0]
    assert 0.7 < (gain > 0).mean() < 1.0  # Bradley-Terry: mostly, not always
    assert gain.mean() > 0.5


def test_one_person_is_one_seed() -> None:
    one = simulate(3, bright_lover(), FewPictures(), support_sets=1, query_pairs=9)
    same = simulate(3, bright_lover(), FewPictures(), support_sets=1, query_pairs=9)
    other = simulate(4, bright_lover(), FewPictures(), support_sets=1, query_pairs=9)
    assert np.array_equal(one.chosen_P, same.chosen_P)
    assert not np.array_equal(one.chosen_P, other.chosen_P)
    assert np.array_equal(taste_of(users.Population(), 3), taste_of(users.Population(), 3))


def test_a_difference_too_small_to_see_is_a_tie_and_ties_are_never_pairs() -> None:
    rng = np.random.default_rng(0)
    looks = np.zeros(L, np.float32)
    assert answer(bright_lover(), looks, looks, rng, tie_below=0.1) is None
    assert answer(bright_lover(), looks, looks + 9, rng, tie_below=0.1) == 1
    pictures = FewPictures()
    person = simulate(5, bright_lover(), pictures, support_sets=1, query_pairs=50, tie_below=1.0)
    gap = users.CHOICE_SCALE * np.abs(
        pictures.looks[person.chosen_P, 0] - pictures.looks[person.rejected_P, 0]
    )
    assert gap.min() >= 1.0


def test_someone_who_never_decides_is_an_error_not_an_endless_loop() -> None:
    with pytest.raises(ValueError, match="tie_below"):
        simulate(5, bright_lover(), FewPictures(), support_sets=1, query_pairs=2, tie_below=1e6)


def test_splits_share_no_person() -> None:
    for one, other in itertools.combinations(SPLIT_SEEDS.values(), 2):
        assert one.stop <= other.start or other.stop <= one.start
    assert person_seeds("test", 3, first=2) == [30_000_002, 30_000_003, 30_000_004]
    with pytest.raises(ValueError, match="holds"):
        person_seeds("test", 1, first=10_000_000)
