"""The transcripts that teach mini's VLM: what they say, and where looks and tastes are read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from ppd_model import prompts
from ppd_model.user_encoder import small_tokenizer
from training.pretrain.vlm import profile_text
from training.pretrain.vlm.examples import (
    IGNORED,
    Answers,
    Collator,
    World,
    compose,
    make_example,
    profile_and_target,
    tokenizer_sentences,
)
from training.pretrain.vlm.held_out_scores import apply_ridge, fit_ridge
from training.pretrain.vlm.steps import schedule
from training.pretrain.vlm.tokenizer import train_tokenizer
from training.world.scene import CONTENTS, LOOKS
from training.world.store import PictureStore

TOKENS_PER_IMAGE = 3


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path: Path = tmp_path_factory.mktemp("vlm") / "vlm_tokenizer.json"
    train_tokenizer(tokenizer_sentences(1500, seed=0), 1200, path)
    return small_tokenizer(path)


@pytest.fixture(scope="module")
def world() -> World:
    """Pictures that are only their looks: that is all that a transcript is made of."""
    content = np.arange(4 * CONTENTS) % CONTENTS
    store = SimpleNamespace(
        looks=np.random.default_rng(0).normal(size=(len(content), 8)).astype(np.float32),
        by_content=lambda part: [np.flatnonzero(content == c) for c in range(CONTENTS)],
    )
    return World(cast("PictureStore", store), slice(None), prior_size=512, seed=0)


def looks(**values: float) -> np.ndarray:
    return np.array([values.get(name, 0.0) for name in LOOKS], dtype=np.float32)


def test_a_picture_is_described_by_its_most_marked_looks() -> None:
    assert profile_text.describe(looks(brightness=1.5, warmth=-0.9, size=0.1)) == " bright, cool."
    assert profile_text.describe(looks()) == " balanced."


def test_differences_tell_how_the_preferred_picture_differs() -> None:
    delta_L = looks(brightness=-1.0, outline=2.0, detail=0.2)
    assert profile_text.differences(delta_L) == " preferred is darker, inkier."


def test_a_profile_states_likes_and_the_opposite_of_what_is_liked_as_avoided() -> None:
    taste_L = looks(brightness=0.8, saturation=0.7, vignette=-0.6)
    text = profile_text.profile(taste_L)
    assert text == "Prefers sunny scenes and vivid colour. Avoids a dark vignette."


@pytest.mark.parametrize("seed", range(20))
def test_what_a_profile_states_is_read_back_from_it(seed: int) -> None:
    taste_L = np.random.default_rng(seed).normal(size=8)
    two_sided = ("brightness", "warmth", "size")
    likes, dislikes = prompts.likes_and_dislikes(profile_text.profile(taste_L))
    stated = [axis for _, axis in profile_text._ranked(taste_L)]
    avoided = [a for a in stated if taste_L[a] < 0 and LOOKS[a] not in two_sided]
    assert len(dislikes) == len(avoided)
    assert len(likes) == len(stated) - len(avoided)


def test_a_response_is_in_the_format_that_the_prompt_asks_for(world: World) -> None:
    example = make_example(world, np.random.default_rng(1))
    for pair in range(1, 5):
        assert f"Pair {pair}:" in example.response
    assert prompts.parse_response(example.response).profile


@pytest.mark.parametrize("variant", prompts.VARIANTS)
def test_the_delta_is_preferred_minus_other_in_both_variants(
    world: World, variant: prompts.Variant
) -> None:
    answers = world.person(np.random.default_rng(2))
    example = compose(answers, variant, "Prefers x.", answers.estimate_L, world.store.looks)
    chosen = answers.pictures_P2[np.arange(4), answers.preferred_P]
    other = answers.pictures_P2[np.arange(4), 1 - answers.preferred_P]
    expected = world.store.looks[chosen] - world.store.looks[other]
    np.testing.assert_allclose(example.deltas_PL, expected, atol=1e-6)


def test_people_prefer_what_they_like(world: World) -> None:
    rng = np.random.default_rng(3)
    gains = []
    for _ in range(100):
        answers = world.person(rng)
        looks_P2L = world.store.looks[answers.pictures_P2]
        margin_P = (looks_P2L[:, 1] - looks_P2L[:, 0]) @ answers.taste_L
        gains.append((margin_P * np.where(answers.preferred_P == 1, 1, -1)).mean())
    assert np.mean(gains) > 0.3


def test_a_typed_text_moves_only_the_looks_that_it_speaks_of(world: World) -> None:
    rng = np.random.default_rng(4)
    answers = Answers(
        taste_L=looks(warmth=1.0),
        pictures_P2=np.zeros((4, 2), dtype=np.int64),
        preferred_P=np.zeros(4, dtype=np.int64),
        captions=["x"] * 4,
        estimate_L=looks(brightness=0.3),
    )
    text, target_L = profile_and_target(answers, "typed", world, rng)
    assert text
    assert target_L[LOOKS.index("warmth")] > 0.9
    assert 0.2 < target_L[LOOKS.index("brightness")] <= 0.3


def test_looks_differences_and_taste_are_read_where_their_words_end(
    world: World, tokenizer: Any
) -> None:
    rng = np.random.default_rng(5)
    batch = Collator(tokenizer, TOKENS_PER_IMAGE)([make_example(world, rng) for _ in range(6)])
    ids_BS = batch.input_ids_BS
    assert len(batch.looks) == 6 * 8 == len(ids_BS[batch.looks_at])
    assert len(batch.deltas) == 6 * 4 == len(ids_BS[batch.deltas_at])
    period = tokenizer.convert_tokens_to_ids(".")
    assert set(ids_BS[batch.looks_at].tolist()) == {period}
    assert set(ids_BS[batch.deltas_at].tolist()) == {period}
    end = tokenizer.convert_tokens_to_ids(prompts.TURN_END)
    rows, positions = batch.final_at
    assert set(ids_BS[rows, positions + 1].tolist()) == {end}
    image = tokenizer.convert_tokens_to_ids(prompts.IMAGE_TOKEN)
    assert (ids_BS == image).sum(dim=1).tolist() == [8 * TOKENS_PER_IMAGE] * 6


def test_only_the_response_is_learned(world: World, tokenizer: Any) -> None:
    example = make_example(world, np.random.default_rng(6))
    batch = Collator(tokenizer, TOKENS_PER_IMAGE)([example])
    learned = batch.labels_BS[0][batch.labels_BS[0] != IGNORED]
    assert tokenizer.decode(learned) == example.response + prompts.TURN_END


def test_world_sentences_are_short_and_any_text_survives_the_tokenizer(tokenizer: Any) -> None:
    ids = tokenizer(" a painting of a toadstool in front of mountains")["input_ids"]
    assert len(ids) <= 9
    strange = " Ünknown wörds, 猫 and emoji 🎈"
    assert tokenizer.decode(tokenizer(strange)["input_ids"]) == strange


def test_the_ridge_probe_finds_a_linear_map() -> None:
    rng = np.random.default_rng(7)
    emb_ND = rng.normal(size=(500, 16)).astype(np.float32)
    taste_NL = (emb_ND @ rng.normal(size=(16, 8))).astype(np.float32)
    read_NL = apply_ridge(emb_ND, fit_ridge(emb_ND, taste_NL))
    assert np.corrcoef(read_NL.ravel(), taste_NL.ravel())[0, 1] > 0.99


def test_the_learning_rate_rises_then_falls() -> None:
    assert schedule(0, 100, 10) == pytest.approx(0.1)
    assert schedule(10, 100, 10) == pytest.approx(1.0)
    assert schedule(100, 100, 10) == pytest.approx(0.01)
