"""Which picture of the pool a liked one is set against."""

from pathlib import Path

import numpy as np
import pytest

from service.core.likes import by_caption, by_picture, picture_against, pictures_of
from service.core.pool import Pair, PairImage, Pool

CAPTIONS = ("a fox at night", "a fox in the town", "a boat at the sea", "a fox at night")


@pytest.fixture
def pool() -> Pool:
    pairs = [
        Pair(f"p{i}", caption, (PairImage(f"{i}-a", ""), PairImage(f"{i}-b", "")), (0.0,))
        for i, caption in enumerate(CAPTIONS)
    ]
    return Pool("1", tuple(pairs), Path(), {})


@pytest.mark.parametrize(
    ("said", "nearest"),
    [
        ("A FOX, at night!", "a fox at night"),
        ("my red boat", "a boat at the sea"),
        ("a fox in a town", "a fox in the town"),
    ],
)
def test_a_caption_finds_the_one_that_shares_most_words(
    pool: Pool, said: str, nearest: str
) -> None:
    found = by_caption(pool, said, "i")
    assert found is not None
    named = picture_against(pool, found.row)
    assert named is not None
    assert (named[0], found.by) == (nearest, "caption")


@pytest.mark.parametrize("said", ["", "a the of", "zeppelin"])
def test_a_caption_that_shares_no_word_finds_none(pool: Pool, said: str) -> None:
    assert by_caption(pool, said, "i") is None


def test_a_picture_finds_the_caption_whose_pictures_it_is_most_like(pool: Pool) -> None:
    of = {
        "a fox at night": [1, 0, 0],
        "a fox in the town": [0, 1, 0],
        "a boat at the sea": [0, 0, 1],
    }
    pool_NF = np.array([of[pair.caption] for pair, _ in pictures_of(pool)], dtype=np.float32)
    found = by_picture(pool, pool_NF, np.array([0.1, 0.2, 0.9], dtype=np.float32), "i")
    assert (found.pair_id, found.by) == ("p2", "picture")


def test_which_picture_is_drawn_by_the_liked_one_and_stays(pool: Pool) -> None:
    drawn = [by_caption(pool, "a fox at night", f"image {i}") for i in range(64)]
    assert {(one.pair_id, one.image) for one in drawn if one} == {
        ("p0", 0), ("p0", 1), ("p3", 0), ("p3", 1),
    }  # fmt: skip
    assert drawn == [by_caption(pool, "a fox at night", f"image {i}") for i in range(64)]


def test_a_pair_that_the_pool_has_lost_is_none(pool: Pool) -> None:
    assert picture_against(pool, {"pair_id": "gone", "image": 0, "by": "picture"}) is None
