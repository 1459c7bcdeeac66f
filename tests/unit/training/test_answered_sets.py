"""Simulated people's sets, and a reader that fails now and then."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ppd_model.types import LabelledPair
from ppd_model.user_encoder import EncodedUser, EncodingError
from training.quiz.answered_sets import answer_sets, choices_of, read_sets
from training.world.scene import LOOKS


def store(per_content: int = 30, contents: int = 4) -> Any:
    """What answer_sets reads of a store."""
    rng = np.random.default_rng(0)
    count = per_content * contents
    content = np.arange(count) % contents
    return SimpleNamespace(
        looks=rng.normal(size=(count, len(LOOKS))).astype(np.float32),
        content=content,
        subject=np.zeros(count, dtype=np.int64),
        setting=content,
        pictures=np.zeros((count, 4, 4, 3), np.uint8),
        by_content=lambda: [np.flatnonzero(content == c) for c in range(contents)],
    )


def taste() -> np.ndarray:
    return np.eye(len(LOOKS), dtype=np.float32)[0]


def test_no_picture_comes_twice_and_pairs_share_their_content() -> None:
    pictures = store()
    answered = answer_sets(7, taste(), pictures, 5, tie_below=0.1)
    flat = answered.pictures_E42.ravel()
    assert answered.pictures_E42.shape == (5, 4, 2)
    assert len(set(flat.tolist())) == flat.size
    content_E42 = pictures.content[answered.pictures_E42]
    assert (content_E42[..., 0] == content_E42[..., 1]).all()
    again = answer_sets(7, taste(), pictures, 5, tie_below=0.1)
    assert (again.preferred_E4 == answered.preferred_E4).all()


def test_answers_follow_the_taste() -> None:
    answered = answer_sets(7, 10 * taste(), store(), 5)
    towards = answered.deltas(store().looks)[..., 0]
    assert ((towards > 0) == (answered.preferred_E4 == 1)).mean() > 0.9
    (choice, *_) = choices_of(answered, 0, store(), np.random.default_rng(0))
    assert choice.preferred == answered.preferred_E4[0, 0]


def test_too_few_pictures_are_an_error() -> None:
    with pytest.raises(ValueError, match="too few pictures"):
        answer_sets(7, taste(), store(per_content=4), 5)


class Reader:
    """Cannot read a set whose first caption is "bad", nor a batch with it in."""

    user_emb_dim = 3

    def encode_batch(
        self, many: Sequence[Sequence[LabelledPair]], *, seed: int
    ) -> list[EncodedUser]:
        if any(choices[0].caption == "bad" for choices in many):
            raise EncodingError("no profile")
        return [
            EncodedUser(c[0].caption, "", np.full(3, seed + i, np.float32), 0.5, [], [])
            for i, c in enumerate(many)
        ]

    def encode(self, choices: Sequence[LabelledPair], *, seed: int) -> EncodedUser:
        return self.encode_batch([choices], seed=seed)[0]


def test_one_unreadable_set_costs_one_set_and_no_seed() -> None:
    picture = Image.new("RGB", (2, 2))
    many = [[LabelledPair(caption, picture, picture, 0)] for caption in ("a", "bad", "c", "d")]
    read = read_sets(Reader(), many, batch=3, seed=10)  # type: ignore[arg-type]
    assert read.readable.tolist() == [True, False, True, True]
    assert read.profiles == ["a", "", "c", "d"]
    assert read.user_emb_ED[[0, 2, 3], 0].tolist() == [10, 12, 13]
