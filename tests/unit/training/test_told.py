"""What an adapter is told of a person, and from which answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from ppd_model.user_encoder import Choice, EncodedUser, UserEncoder
from training import told as told_module
from training.dataset import load_pairs, read_profiles
from training.precompute import prior_samples
from training.shards import read_manifest
from training.source_plan import config_of
from training.splits import Split
from training.told import Answers, Features, Told
from training.world import users
from training.world.truth import GroundTruth

WIDTH = 128
SPLITS: tuple[Split, ...] = ("seen_users", "unseen_users")


def told(folder: Path, answers: Answers) -> Told:
    return Told(folder, SPLITS, answers, "mini", None)


def people_of(folder: Path) -> list[str]:
    profiles = read_profiles(folder)
    places = load_pairs(folder, "posterior", WIDTH, SPLITS).place_U.tolist()
    return [profiles[place]["user_id"] for place in places]


class ReadingEncoder:
    """Reads from the captions and answers alone."""

    user_emb_dim = WIDTH

    def __init__(self, version: str) -> None:
        self.encoder_version = version

    def encode_batch(self, many: Sequence[Sequence[Choice]], seed: int = 0) -> list[EncodedUser]:
        return [self.encode(choices) for choices in many]

    def encode(self, choices: Sequence[Choice], seed: int = 0) -> EncodedUser:
        text = "".join(f"{choice.caption}{choice.preferred}" for choice in choices)
        emb_D = np.zeros(WIDTH, np.float32)
        emb_D[sum(text.encode()) % WIDTH] = 1
        return EncodedUser(text, "", emb_D, 0.5, [], [])


@pytest.fixture
def encoder(precomputed: Path, monkeypatch: pytest.MonkeyPatch) -> ReadingEncoder:
    fake = ReadingEncoder(read_manifest(precomputed)["provenance"]["encoder_id"])
    monkeypatch.setattr(UserEncoder, "load", lambda *_, **__: fake)
    return fake


def test_all_sets_are_the_mean_of_what_each_set_tells(
    precomputed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = people_of(precomputed)
    one = load_pairs(precomputed, "posterior", WIDTH, SPLITS)
    counts_U = torch.arange(len(people)) % 3 + 1
    emb_ED = torch.randn(int(counts_U.sum()), WIDTH, generator=torch.Generator().manual_seed(0))
    first_U = counts_U.cumsum(0) - counts_U
    several = replace(one, user_emb_ED=emb_ED, embeddings_U=counts_U, first_embedding_U=first_U)
    monkeypatch.setattr(told_module, "load_pairs", lambda *_: several)
    first = told(precomputed, "first_set").of(people, "posterior", WIDTH)
    mean = told(precomputed, "all_sets").of(people, "posterior", WIDTH)
    for person, (start, count) in enumerate(zip(first_U.tolist(), counts_U.tolist(), strict=True)):
        assert np.array_equal(first[person], emb_ED[start].numpy())
        assert np.allclose(mean[person], emb_ED[start : start + count].mean(0).numpy(), atol=1e-6)


def test_what_is_told_follows_the_person_and_not_the_order(precomputed: Path) -> None:
    people = people_of(precomputed)
    for answers in get_args(Answers):
        asked = told(precomputed, answers)
        forwards = asked.of(people, "posterior", WIDTH)
        backwards = asked.of([*reversed(people), people[0]], "posterior", WIDTH)
        assert np.array_equal(np.stack(forwards), np.stack(backwards[-2::-1]))
        assert np.array_equal(backwards[-1], forwards[0])


@pytest.mark.parametrize("features", get_args(Features))
def test_the_quiz_tells_each_feature_of_the_same_four_answers(
    features: Features, precomputed: Path, encoder: ReadingEncoder
) -> None:
    people = people_of(precomputed)
    asked = told(precomputed, "quiz")
    found = asked.of(people, features, WIDTH)
    read_with = config_of(precomputed)
    answered = asked.quizzed(people, read_with)
    prior = prior_samples(read_with)
    truth = GroundTruth.load(read_with.truth or Path())
    for user_id, person, emb_D in zip(people, answered, found, strict=True):
        expected: np.ndarray = {
            "vlm": encoder.encode(person.choices).user_emb_D,
            "none": np.ones(WIDTH, np.float32),
            "posterior": users.posterior_mean(person.delta_4L, person.preferred_4, prior),
            "taste": truth.taste(user_id),
        }[features]
        assert emb_D.shape == (WIDTH,)
        assert np.allclose(emb_D[: len(expected)], expected, atol=1e-6)
        assert not emb_D[len(expected) :].any()


def test_a_reader_of_another_kind_is_refused(precomputed: Path, encoder: ReadingEncoder) -> None:
    encoder.encoder_version = "another"
    with pytest.raises(ValueError, match="'another'"):
        told(precomputed, "quiz").of(people_of(precomputed), "vlm", WIDTH)


def test_real_people_cannot_be_quizzed(precomputed: Path) -> None:
    read_with = config_of(precomputed).model_copy(update={"truth": None})
    with pytest.raises(ValueError, match="without the ground truth"):
        told(precomputed, "quiz").quizzed(people_of(precomputed), read_with)
