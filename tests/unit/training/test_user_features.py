"""What an adapter is told of a person, and from which answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ppd_model.types import LabelledPair
from ppd_model.user_encoder import EncodedUser, UserEncoder
from training.data.dataset import PreferencePairs, load_pairs, read_profiles
from training.data.shards import read_manifest, verified
from training.data.splits import Split
from training.precompute import source_plan
from training.precompute.precompute_config import prior_samples
from training.precompute.source_plan import config_of
from training.win_rates import user_features
from training.win_rates.user_features import Answers, Features, FeaturesOfPeople
from training.world import tastes
from training.world.truth import GroundTruth

WIDTH = 128
SPLITS: tuple[Split, ...] = ("seen_users", "unseen_users")


def told(folder: Path, answers: Answers, people: Sequence[str] | None = None) -> FeaturesOfPeople:
    return FeaturesOfPeople(folder, SPLITS, people or people_of(folder), answers, "mini", None)


def people_of(folder: Path) -> list[str]:
    profiles = read_profiles(folder)
    places = load_pairs(folder, "posterior", WIDTH, SPLITS).place_U.tolist()
    return [profiles[place]["user_id"] for place in places]


class ReadingEncoder:
    """Reads from the captions and answers alone."""

    user_emb_dim = WIDTH

    def __init__(self, version: str) -> None:
        self.encoder_version = version
        self.read = 0

    def encode_batch(
        self, many: Sequence[Sequence[LabelledPair]], seed: int = 0
    ) -> list[EncodedUser]:
        self.read += len(many)
        return [self.encode(choices) for choices in many]

    def encode(self, choices: Sequence[LabelledPair], seed: int = 0) -> EncodedUser:
        text = "".join(f"{choice.caption}{choice.preferred}" for choice in choices)
        emb_D = np.zeros(WIDTH, np.float32)
        emb_D[sum(text.encode()) % WIDTH] = 1
        return EncodedUser(text, "", emb_D, 0.5, [], [])


@pytest.fixture
def encoder(precomputed: Path, monkeypatch: pytest.MonkeyPatch) -> ReadingEncoder:
    fake = ReadingEncoder(read_manifest(precomputed)["provenance"]["encoder_id"])
    monkeypatch.setattr(UserEncoder, "load", lambda *_, **__: fake)
    return fake


@pytest.fixture
def several(precomputed: Path, monkeypatch: pytest.MonkeyPatch) -> PreferencePairs:
    """The folder's people, with one to three sets of each, in the place of one."""
    one = load_pairs(precomputed, "taste", WIDTH, SPLITS)
    counts_U = torch.arange(one.people) % 3 + 1
    emb_ED = torch.randn(int(counts_U.sum()), WIDTH, generator=torch.Generator().manual_seed(0))
    first_U = counts_U.cumsum(0) - counts_U
    pairs = replace(one, user_emb_ED=emb_ED, embeddings_U=counts_U, first_embedding_U=first_U)
    monkeypatch.setattr(user_features, "load_pairs", lambda *_: pairs)
    return pairs


def test_all_sets_are_the_mean_of_what_each_set_tells(
    precomputed: Path, several: PreferencePairs
) -> None:
    first = told(precomputed, "first_set").of("vlm", WIDTH)
    mean = told(precomputed, "all_sets").of("vlm", WIDTH)
    starts, counts = several.first_embedding_U.tolist(), several.embeddings_U.tolist()
    for person, (start, count) in enumerate(zip(starts, counts, strict=True)):
        sets_ED = several.user_emb_ED[start : start + count].numpy()
        assert np.array_equal(first[person], sets_ED[0])
        assert np.allclose(mean[person], sets_ED.mean(0), atol=1e-6)


def test_the_best_estimate_of_all_sets_weighs_all_answers_at_once(precomputed: Path) -> None:
    shards = [load_file(path) for path in verified(precomputed, "people-")]
    places = load_pairs(precomputed, "posterior", WIDTH, SPLITS).place_U.tolist()
    prior = prior_samples(config_of(precomputed))
    found = told(precomputed, "all_sets").of("posterior", WIDTH)
    assert len(shards) == 1  # so that a place is a row
    for place, emb_D in zip(places, found, strict=True):
        own_E = shards[0]["person_E"] == place
        estimate_L = tastes.posterior_mean(
            shards[0]["support_delta_E4L"][own_E].flatten(0, 1).numpy(),
            shards[0]["support_preferred_E4"][own_E].flatten().numpy(),
            prior,
        )
        assert np.allclose(emb_D[: len(estimate_L)], estimate_L, atol=1e-6)


def test_what_is_told_follows_the_person_and_not_the_order(precomputed: Path) -> None:
    people = people_of(precomputed)
    for answers in get_args(Answers):
        forwards = told(precomputed, answers).of("posterior", WIDTH)
        asked = [*reversed(people), people[0]]
        backwards = told(precomputed, answers, asked).of("posterior", WIDTH)
        assert np.array_equal(np.stack(forwards), np.stack(backwards[-2::-1]))
        assert np.array_equal(backwards[-1], forwards[0])


@pytest.mark.parametrize("features", get_args(Features))
def test_the_quiz_tells_each_feature_of_the_same_four_answers(
    features: Features, precomputed: Path, encoder: ReadingEncoder
) -> None:
    asked = told(precomputed, "quiz")
    found = asked.of(features, WIDTH)
    read_with = config_of(precomputed)
    prior = prior_samples(read_with)
    truth = GroundTruth.load(read_with.truth or Path())
    for user_id, person, emb_D in zip(asked.people, asked.quizzed, found, strict=True):
        expected: np.ndarray = {
            "vlm": encoder.encode(person.choices).user_emb_D,
            "none": np.ones(WIDTH, np.float32),
            "posterior": tastes.posterior_mean(person.delta_4L, person.preferred_4, prior),
            "taste": truth.taste(user_id),
        }[features]
        assert emb_D.shape == (WIDTH,)
        assert np.allclose(emb_D[: len(expected)], expected, atol=1e-6)
        assert not emb_D[len(expected) :].any()


def test_a_person_is_asked_and_read_once(precomputed: Path, encoder: ReadingEncoder) -> None:
    people = people_of(precomputed)
    asked = told(precomputed, "quiz", [*people, *people])
    first, again = asked.of("vlm", WIDTH), asked.of("vlm", WIDTH)
    assert encoder.read == len(people)
    assert np.array_equal(np.stack(first), np.stack(again))


def test_a_reader_of_another_kind_is_refused(precomputed: Path, encoder: ReadingEncoder) -> None:
    encoder.encoder_version = "another"
    with pytest.raises(ValueError, match="'another'"):
        told(precomputed, "quiz").of("vlm", WIDTH)


def test_real_people_cannot_be_quizzed(precomputed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = config_of(precomputed).model_copy(update={"truth": None})
    monkeypatch.setattr(source_plan, "config_of", lambda _: real)
    with pytest.raises(ValueError, match="without the ground truth"):
        _ = told(precomputed, "quiz").quizzed
