"""What answers to the pool's pairs foretell, and when nothing is said."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppd_model.answers import AnswerModel, belief
from ppd_model.files.artifact import sha256_of
from ppd_model.presets import get_preset
from ppd_model.user_encoder import UserEncoder
from service.core.foretold import expected_reading, foretold
from service.core.pool import Pair, PairImage, Pool, load_pool
from tests.running_service import make_pool
from training.quiz.quizzes import POOL_DIR

MODEL = AnswerModel(
    encoder_version="reader",
    adapter_version="adapter",
    pairs_sha256="0",
    most_answers=8,
    reading_KD=[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
    offset_D=[0.0, 0.0, 5.0],
    wins_at_none=0.5,
    wins_by=0.5,
    foretells_more=True,
)


def pool(model: AnswerModel | None = MODEL) -> Pool:
    rng = np.random.default_rng(3)
    images = (PairImage("a.webp", "a"), PairImage("b.webp", "b"))
    pairs = tuple(
        Pair(f"p{i}", f"caption {i}", images, tuple((2 * rng.normal(size=2)).tolist()))
        for i in range(20)
    )
    return Pool("1", pairs, Path(), {}, model)


def answers(count: int, taste_K: tuple[float, float] = (1.0, 0.0)) -> list[dict[str, Any]]:
    return [
        {"pair_id": pair.pair_id, "preferred": int(np.dot(pair.look_delta_L, taste_K) > 0)}
        for pair in pool().pairs[:count]
    ]


def test_one_set_is_read_as_it_is_and_more_are_drawn_to_what_is_expected() -> None:
    assert expected_reading(pool(), answers(4), "reader") is None
    found = expected_reading(pool(), answers(8), "reader")
    assert found is not None
    assert found.share == 1
    assert found.emb_D[0] > abs(found.emb_D[1])
    assert found.emb_D[2] == 5
    assert expected_reading(pool(), answers(8), "another reader") is None
    assert expected_reading(pool(None), answers(8), "reader") is None


def test_of_pairs_that_the_pool_has_not_nothing_is_expected() -> None:
    own = [{"pair_id": None, "preferred": 1}, {"pair_id": "of yesterday", "preferred": 1}]
    mixed = expected_reading(pool(), [*answers(6), *own], "reader")
    assert mixed is not None
    assert mixed.share == 0.75
    alone = expected_reading(pool(), answers(6), "reader")
    assert alone is not None
    assert mixed.emb_D.tolist() == alone.emb_D.tolist()
    assert expected_reading(pool(), own * 4, "reader") is None


def test_the_chance_is_that_of_the_belief_and_rises_with_four_more() -> None:
    given = answers(4)
    delta_NK = np.array([pair.look_delta_L for pair in pool().pairs[:4]])
    now = belief(delta_NK, np.array([answer["preferred"] for answer in given]))
    found = foretold(pool(), given, "reader", "adapter")
    assert found is not None
    assert found.now == pytest.approx(1 / (1 + np.exp(-0.5 - 0.5 * now.clearness)))
    assert found.after_four_more is not None
    assert found.now < found.after_four_more < 1


def test_what_was_not_measured_is_not_foretold() -> None:
    assert foretold(pool(), answers(8), "another reader", "adapter") is None
    assert foretold(pool(), answers(8), "reader", "another adapter") is None
    assert foretold(pool(), answers(8), "reader", None) is None
    assert foretold(pool(None), answers(8), "reader", "adapter") is None
    assert foretold(pool(replace(MODEL, wins_by=None)), answers(8), "reader", "adapter") is None
    assert foretold(pool(), [], "reader", "adapter") is None
    assert foretold(pool(), answers(9), "reader", "adapter") is None, "of eight at most"
    own = [*answers(7), {"pair_id": None, "preferred": 0}]
    assert foretold(pool(), own, "reader", "adapter") is None
    at_the_end = foretold(pool(), answers(5), "reader", "adapter")
    assert at_the_end is not None
    assert at_the_end.after_four_more is None, "nine were not measured"
    silent = foretold(pool(replace(MODEL, foretells_more=False)), answers(4), "reader", "adapter")
    assert silent is not None
    assert silent.after_four_more is None


def test_a_model_of_another_pool_is_refused(tmp_path: Path) -> None:
    folder = make_pool(tmp_path)
    assert load_pool(folder).answer_model is None
    dimensions = len(load_pool(folder).pairs[0].look_delta_L)
    pairs_sha256 = sha256_of(folder / "pairs.json")
    fitting = replace(MODEL, pairs_sha256=pairs_sha256, reading_KD=[[0.0] * 3] * dimensions)
    fitting.save(folder / "answers.json")
    assert load_pool(folder).answer_model == fitting
    replace(fitting, reading_KD=MODEL.reading_KD).save(folder / "answers.json")
    with pytest.raises(ValueError, match="2 coordinates, expected 4"):
        load_pool(folder)
    fitting.save(folder / "answers.json")
    pairs = (folder / "pairs.json").read_text()
    (folder / "pairs.json").write_text(pairs.replace('"test-1"', '"test-2"'))
    with pytest.raises(ValueError, match="is of pairs with sha256"):
        load_pool(folder)


def test_what_is_shipped_belongs_to_the_reader_that_is_shipped() -> None:
    model = load_pool(POOL_DIR).answer_model
    assert model is not None
    assert model.encoder_version == UserEncoder.version_of("mini")
    assert len(model.offset_D) == get_preset("mini").user_emb_dim
