"""Sets of four answers as differences of picture features, which is all that rivals read.

Features are those that the quiz's coordinates come from (training.taste_space): of the VLM's vision
tower, averaged over patches. Its language model is not asked.

Legend: E sets of 4 answers, 2 pictures of a pair, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from ppd_model.pictures.reading import KEPT, read_picture
from ppd_model.user_encoder import UserEncoder
from training.data.dataset import read_profiles
from training.data.vlm_readings import in_batches
from training.precompute.source_plan import plan_of
from training.quiz.quizzes import Person
from training.taste_space import picture_features

FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Answers:
    """delta_E4F: features of the second picture minus the first's; preferred_E4: 0 or 1.

    person_E numbers the people who answered, as `read_profiles` has them; known_E: whether training
    may look at them.
    """

    delta_E4F: FloatArray
    preferred_E4: NDArray[np.int64]
    person_E: NDArray[np.int64]
    known_E: NDArray[np.bool_]

    def of(self, wanted_E: NDArray[np.bool_]) -> Answers:
        """Some of the sets."""
        return Answers(**{name: value[wanted_E] for name, value in vars(self).items()})

    def of_known(self) -> Answers:
        """Those that training may look at."""
        return self.of(self.known_E)

    def liked_minus_disliked(self) -> FloatArray:
        """Features of the preferred picture minus the other's, E x 4 x F."""
        sign_E41: FloatArray = 2.0 * self.preferred_E4[..., None] - 1
        return sign_E41 * self.delta_E4F

    def save(self, path: Path) -> None:
        save_file({name: np.ascontiguousarray(value) for name, value in vars(self).items()}, path)

    @classmethod
    def load(cls, path: Path) -> Answers:
        return cls(**load_file(path))


def answers_of_data(data: Path, encoder: UserEncoder, batch: int = 64) -> Answers:
    """All support sets of a folder of training.precompute, in the order of its embeddings."""
    plan = plan_of(data)
    jpegs = plan.files.pictures(plan.support.source_N2)
    parts = []
    with tqdm(total=len(plan.support), desc="features", unit="picture", mininterval=5) as bar:
        for part in in_batches(jpegs, batch):
            parts.append(picture_features(encoder, [read_picture(jpeg, KEPT) for jpeg in part]))
            bar.update(len(part))
    features_NF = np.concatenate(parts)
    number = {uid: place for place, uid in enumerate(plan.preferences.pictures)}
    people = read_profiles(data)
    sets = [(row, each) for row, person in enumerate(people) for each in person["sets"]]
    uids = [uid for _, each in sets for pair in each["pairs"] for uid in pair["pictures"]]
    place_of_uids = plan.support.place[[number[uid] for uid in uids]]
    shown_E42 = place_of_uids.reshape(len(sets), -1, 2)
    return Answers(
        delta_E4F=features_NF[shown_E42[..., 1]] - features_NF[shown_E42[..., 0]],
        preferred_E4=np.array([[pair["preferred"] for pair in each["pairs"]] for _, each in sets]),
        person_E=np.array([row for row, _ in sets]),
        known_E=np.array([not people[row]["unseen"] for row, _ in sets]),
    )


def answers_of_people(people: Sequence[Person], encoder: UserEncoder) -> Answers:
    """The four answers of each person of a quiz. Training has not met them."""
    shown = [
        image
        for person in people
        for choice in person.choices
        for image in (choice.image_0, choice.image_1)
    ]
    once = list({id(image): image for image in shown}.values())
    place = {id(image): row for row, image in enumerate(once)}
    features_NF = picture_features(encoder, once)
    shown_E42 = np.array([place[id(image)] for image in shown]).reshape(len(people), -1, 2)
    return Answers(
        delta_E4F=features_NF[shown_E42[..., 1]] - features_NF[shown_E42[..., 0]],
        preferred_E4=np.stack([person.preferred_4 for person in people]),
        person_E=np.arange(len(people)),
        known_E=np.zeros(len(people), dtype=np.bool_),
    )
