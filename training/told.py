"""What an adapter is told of a person, in the place of an embedding that serving would make.

Each adapter is told what it was trained with: the VLM's reading; nothing, the same for everybody;
or, in the world, the best estimate from the same answers or the true taste, which are bounds. From
which answers is another question:

- "first_set": the person's first four choices in the data, as the paper does;
- "all_sets": all sets of four that the data hold of the person, the features' mean (for
  training.precompute's `support_sets` of 2, eight choices);
- "quiz": four choices among the pairs that the service would ask them, which only people of the
  world can be asked.

Legend: U people, D embedding, L looks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ppd_model.pipeline import MINI_WEIGHTS_DIR
from ppd_model.user_encoder import UserEncoder
from training.answered_sets import read_sets
from training.dataset import load_pairs, pad_features, read_profiles
from training.precompute import PrecomputeConfig, prior_samples
from training.quizzes import Person, make_quiz
from training.shards import read_manifest
from training.source_plan import config_of
from training.splits import Split
from training.synthetic_users.arms import everybody
from training.world import users
from training.world.looks import Standardizer, measure_all
from training.world.truth import GroundTruth

FloatArray = NDArray[np.float32]
Features = Literal["vlm", "none", "posterior", "taste"]
Answers = Literal["first_set", "all_sets", "quiz"]


@dataclass(frozen=True)
class Told:
    """Where what is told comes from.

    data: a folder of training.precompute. splits: whose people may be asked for. preset and
    weights_dir: of the VLM, and weights_dir also of the world's standardizer.
    """

    data: Path
    splits: Sequence[Split]
    answers: Answers
    preset: str
    weights_dir: Path | None
    device: str = "cpu"
    tie_below: float = 0.1
    batch: int = 32

    def of(self, user_ids: Sequence[str], features: Features, width: int) -> list[FloatArray]:
        """An embedding, D, for each of these people.

        Raises ValueError where the folder lacks what it needs, and where the VLM reads otherwise
        than it did for the folder.
        """
        if features == "none":
            return [everybody(width)] * len(user_ids)
        if self.answers == "quiz":
            return self._of_quiz(user_ids, features, width)
        pairs = load_pairs(self.data, features, width, self.splits)
        profiles = read_profiles(self.data)
        of_user: dict[str, FloatArray] = {}
        for place, first, sets in zip(
            pairs.place_U.tolist(),
            pairs.first_embedding_U.tolist(),
            pairs.embeddings_U.tolist(),
            strict=True,
        ):
            told = sets if self.answers == "all_sets" else 1
            emb_D = pairs.user_emb_ED[first : first + told].mean(0)
            of_user[profiles[place]["user_id"]] = emb_D.numpy()
        return [of_user[user_id] for user_id in user_ids]

    def _of_quiz(self, user_ids: Sequence[str], features: Features, width: int) -> list[FloatArray]:
        read_with = config_of(self.data)
        different = list(dict.fromkeys(user_ids))
        people = self.quizzed(different, read_with)
        if features == "vlm":
            feature_UD = torch.from_numpy(self._read(people, read_with))
        elif features == "posterior":
            prior = prior_samples(read_with)
            estimates = [users.posterior_mean(p.delta_4L, p.preferred_4, prior) for p in people]
            feature_UD = torch.from_numpy(np.stack(estimates))
        else:
            feature_UD = torch.from_numpy(np.stack([person.taste_L for person in people]))
        emb_UD = pad_features(feature_UD, width).numpy()
        of_user = dict(zip(different, emb_UD, strict=True))
        return [of_user[user_id] for user_id in user_ids]

    def quizzed(self, user_ids: Sequence[str], read_with: PrecomputeConfig) -> list[Person]:
        """These people of the world, each with four choices of the quiz's own pairs."""
        if read_with.truth is None:
            raise ValueError(f"{self.data} was made without the ground truth of people's tastes")
        truth = GroundTruth.load(read_with.truth)
        weights_dir = self.weights_dir or MINI_WEIGHTS_DIR
        standardizer = Standardizer.load(weights_dir / "standardizer.json")
        quiz = make_quiz(
            "served",
            lambda images, content_B: standardizer.apply(measure_all(images), content_B),
            self.tie_below,
        )
        return [
            quiz(truth.taste(user_id), np.random.default_rng(seed_of(user_id)))
            for user_id in user_ids
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
        if not read.readable.all():
            raise ValueError(f"the VLM could not read {(~read.readable).sum()} people")
        return read.user_emb_ED


def seed_of(user_id: str) -> int:
    """The same answers whenever the same person is asked."""
    return int.from_bytes(hashlib.sha256(user_id.encode()).digest()[:8], "big")
