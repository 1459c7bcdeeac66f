"""People's sets of four pairs, each read by the VLM: asked anew, or of a precomputed folder.

Legend: U people, E sets, 4 answers each, D embedding, L looks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppd_model.user_encoder import UserEncoder
from training.classify_users.classify_config import ClassifyConfig
from training.data.shards import ShardFolder, read_manifest, read_shards
from training.quiz.answered_sets import answer_sets, choices_of, read_sets
from training.world import tastes
from training.world.people import person_seeds, taste_of
from training.world.store import PictureStore

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
SETS_FOLDER = "sets"


@dataclass(frozen=True)
class PeoplesSets:
    """E sets of U people. Looks and tastes are there for the world only.

    signed_E4L: looks of the preferred picture minus the other's.
    """

    user_emb_ED: Tensor
    person_E: IntArray
    signed_E4L: FloatArray | None = None
    taste_UL: FloatArray | None = None

    @property
    def people(self) -> int:
        return int(self.person_E.max()) + 1


def ask_people(config: ClassifyConfig, resume: bool) -> Path:
    """People of the world answer, the VLM reads, a few people to a shard; returns the folder.

    The shards' tensors have the names that training.precompute gives them.
    """
    if config.store_dir is None:
        raise ValueError("neither data nor store_dir: whose sets shall be classified?")
    store = PictureStore(config.store_dir)
    encoder = UserEncoder.load(config.preset, config.weights_dir)
    made_with = {
        "encoder": encoder.encoder_version,
        "people": [config.split, config.first_person, config.people],
        "sets": config.sets,
        "tie_below": config.tie_below,
    }
    folder = ShardFolder(config.out / SETS_FOLDER, made_with, resume)
    seeds = person_seeds(config.split, config.people, config.first_person)
    population = tastes.Population()
    for name, members in folder.missing("people", len(seeds), config.people_per_shard):
        part = seeds[members]
        taste_UL = np.stack([taste_of(population, seed) for seed in part])
        answered = [
            answer_sets(seed, taste_L, store, config.sets, tie_below=config.tie_below)
            for seed, taste_L in zip(part, taste_UL, strict=True)
        ]
        asked = [
            choices_of(one, index, store, np.random.default_rng([seed, 16, index]))
            for seed, one in zip(part, answered, strict=True)
            for index in range(config.sets)
        ]
        read = read_sets(encoder, asked, batch=config.encode_batch)
        tensors: dict[str, NDArray[Any]] = {
            "user_emb_ED": read.user_emb_ED,
            "person_E": np.repeat(np.arange(len(part)), config.sets),
            "taste_UL": taste_UL,
            "support_delta_E4L": np.concatenate([one.deltas(store.looks) for one in answered]),
            "support_preferred_E4": np.concatenate([one.preferred_E4 for one in answered]),
        }
        folder.write(name, tensors)
    folder.finish()
    return config.out / SETS_FOLDER


def load_sets(folder: Path, people: int, sets: int) -> PeoplesSets:
    """At most `sets` readable sets of each of the `people` who have most of them.

    Raises ValueError for a folder that is not complete or has no embeddings.
    """
    read_manifest(folder, finished=True)
    shards = read_shards(folder, "people-")
    if any("user_emb_ED" not in shard for shard in shards):
        raise ValueError(f"{folder} holds no user embeddings: its people were not read by the VLM")
    emb_ED = torch.cat([shard["user_emb_ED"] for shard in shards]).float()
    counted, persons = 0, []
    for shard in shards:
        persons.append(shard["person_E"].numpy() + counted)
        counted += int(shard["person_E"].max()) + 1
    person_E = np.concatenate(persons)
    kept_E = choose_sets(person_E, torch.isfinite(emb_ED).all(1).numpy(), people, sets)
    _, numbered_E = np.unique(person_E[kept_E], return_inverse=True)
    signed_E4L = taste_UL = None
    if all("support_delta_E4L" in shard for shard in shards):
        delta_E4L = torch.cat([shard["support_delta_E4L"] for shard in shards]).numpy()[kept_E]
        preferred_E4 = torch.cat([shard["support_preferred_E4"] for shard in shards]).numpy()
        sign_E41 = np.where(preferred_E4[kept_E] == 1, 1.0, -1.0)[..., None]
        signed_E4L = (delta_E4L * sign_E41).astype(np.float32)
        tastes = torch.cat([shard["taste_UL"] for shard in shards]).numpy()
        taste_UL = tastes[np.unique(person_E[kept_E])]
    return PeoplesSets(emb_ED[kept_E], numbered_E.astype(np.int64), signed_E4L, taste_UL)


def choose_sets(
    person_E: IntArray, readable_E: NDArray[np.bool_], people: int, sets: int
) -> IntArray:
    """Row numbers of the people with most readable sets (paper, B.2), the first ones of each."""
    rows_of = {int(p): np.flatnonzero((person_E == p) & readable_E) for p in np.unique(person_E)}
    most = sorted(rows_of, key=lambda person: (-len(rows_of[person]), person))[:people]
    return np.concatenate([rows_of[person][:sets] for person in sorted(most)])
