"""What an adapter is given of a person, in the place of an embedding that serving would make.

Each adapter is given what it was trained with: the VLM's reading; nothing, the same for everybody;
or, in the world, the best estimate from the same answers or the true taste, which are bounds. From
which answers is another question:

- "first_set": the person's first four choices in the data, as the paper does;
- "all_sets": all sets of four that the data hold of the person (for training.precompute's
  `support_sets` of 2, eight choices): the mean of the VLM's readings, the best estimate from all
  answers together;
- "quiz": four choices among the pairs that the service would ask them, which only people of the
  world can be asked.

Legend: U people, E sets, D embedding, L looks, N answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppd_model.pipeline import MINI_WEIGHTS_DIR
from ppd_model.user_encoder import UserEncoder
from training.data.dataset import PreferencePairs, load_pairs, pad_features, read_profiles
from training.data.shards import read_manifest, read_shards
from training.data.splits import Split
from training.precompute.precompute_config import PrecomputeConfig, prior_samples
from training.precompute.source_plan import config_of, truth_of
from training.quiz.answered_sets import read_sets
from training.quiz.quizzes import Person, make_quiz
from training.synthetic_users.arms import everybody
from training.world import tastes
from training.world.looks import Standardizer

FloatArray = NDArray[np.float32]
Features = Literal["vlm", "none", "posterior", "taste"]
Answers = Literal["first_set", "all_sets", "quiz"]
TIE_BELOW = 0.1
"""As people of the world answer elsewhere (training.world.export)."""


@dataclass
class FeaturesOfPeople:
    """What adapters are given of these people.

    data: a folder of training.precompute; user_ids: people of these splits of it, any of them
    several times. preset and weights_dir: of the VLM, and weights_dir also of the world's
    standardizer. A person's first set is the first that could be read.
    """

    data: Path
    splits: Sequence[Split]
    user_ids: Sequence[str]
    answers: Answers
    preset: str
    weights_dir: Path | None
    device: str = "cpu"
    batch: int = 32

    def __post_init__(self) -> None:
        self.people = list(dict.fromkeys(self.user_ids))
        self._place = [self.people.index(user_id) for user_id in self.user_ids]
        self._known: dict[Features, FloatArray] = {}

    def of(self, features: Features, width: int) -> list[FloatArray]:
        """An embedding of that width for each of the user ids, read or computed once.

        Raises ValueError where the folder lacks what it needs, and where the VLM reads otherwise
        than it did for the folder.
        """
        if features == "none":
            return [everybody(width)] * len(self._place)
        if features not in self._known:
            quiz = self.answers == "quiz"
            found_UD = self._of_quiz(features) if quiz else self._of_data(features, width)
            self._known[features] = pad_features(torch.from_numpy(found_UD), width).numpy()
        emb_UD = self._known[features]
        return [emb_UD[place] for place in self._place]

    def _of_data(self, features: Features, width: int) -> FloatArray:
        pairs = load_pairs(self.data, features, width, self.splits)
        if self.answers == "first_set":
            emb_UD = pairs.user_emb_ED[pairs.first_embedding_U]
        elif features == "posterior":
            emb_UD = self._of_all_answers(pairs)
        else:
            sums_UD = torch.zeros(pairs.people, width)
            person_E = torch.arange(pairs.people).repeat_interleave(pairs.embeddings_U)
            sums_UD.index_add_(0, person_E, pairs.user_emb_ED)
            emb_UD = sums_UD / pairs.embeddings_U[:, None]
        profiles = read_profiles(self.data)
        row_of = {profiles[p]["user_id"]: row for row, p in enumerate(pairs.place_U.tolist())}
        rows = [row_of[user_id] for user_id in self.people]
        found_UD: FloatArray = emb_UD[rows].numpy()
        return found_UD

    def _of_all_answers(self, pairs: PreferencePairs) -> Tensor:
        """The best estimate from all answers of each of the people of `pairs`, U x L."""
        shards = read_shards(self.data, "people-")
        delta_of, preferred_of = [], []
        for shard in shards:
            for person in range(int(shard["person_E"].max()) + 1):
                own_E = shard["person_E"] == person
                delta_of.append(shard["support_delta_E4L"][own_E].flatten(0, 1).numpy())
                preferred_of.append(shard["support_preferred_E4"][own_E].flatten().numpy())
        prior = prior_samples(config_of(self.data))
        estimates = [
            tastes.posterior_mean(delta_of[place], preferred_of[place], prior)
            for place in pairs.place_U.tolist()
        ]
        return torch.from_numpy(np.stack(estimates))

    def _of_quiz(self, features: Features) -> FloatArray:
        read_with = config_of(self.data)
        people = self.quizzed
        if features == "vlm":
            return self._read(people, read_with)
        if features == "posterior":
            prior = prior_samples(read_with)
            return np.stack(
                [tastes.posterior_mean(p.delta_4L, p.preferred_4, prior) for p in people]
            )
        return np.stack([person.taste_L for person in people])

    @cached_property
    def quizzed(self) -> list[Person]:
        """The people, each once, with four choices of the quiz's own pairs.

        Raises ValueError for people who are not of the world.
        """
        truth = truth_of(self.data)
        weights_dir = self.weights_dir or MINI_WEIGHTS_DIR
        standardizer = Standardizer.load(weights_dir / "standardizer.json")
        quiz = make_quiz("served", standardizer.looks, TIE_BELOW)
        return [
            quiz(truth.taste(user_id), np.random.default_rng(seed_of(user_id)))
            for user_id in self.people
        ]

    def _read(self, people: Sequence[Person], read_with: PrecomputeConfig) -> FloatArray:
        encoder = UserEncoder.load(
            self.preset,
            self.weights_dir,
            self.device,
            prompt_variant=read_with.prompt_variant,
            decoding=read_with.decoding,
        )
        wanted = read_manifest(self.data)["provenance"]["encoder_id"]
        if encoder.encoder_version != wanted:
            raise ValueError(
                f"{self.data} was read by {wanted!r}, the user encoder is "
                f"{encoder.encoder_version!r}"
            )
        many = [person.choices for person in people]
        read = read_sets(encoder, many, batch=self.batch, what="people of the quiz")
        return read.complete().user_emb_ED


def seed_of(user_id: str) -> int:
    """The same answers whenever the same person is asked."""
    return int.from_bytes(hashlib.sha256(user_id.encode()).digest()[:8], "big")
