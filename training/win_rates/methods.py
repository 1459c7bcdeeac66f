"""Who is painted for, and what each method gives the model for them.

Legend: R tasks, D embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import numpy as np
from numpy.typing import NDArray

from ppd_model.pipeline import Pipeline
from training.data.dataset import read_profiles
from training.data.shards import read_manifest
from training.judges.known_choices import KnownChoice, TestSplit, known_choices
from training.synthetic_users.arms import adapter_of
from training.win_rates.user_features import Features, FeaturesOfPeople
from training.win_rates.win_rates_config import (
    ANOTHER,
    BASE,
    FIRST_SEED,
    SPLITS,
    WinRatesConfig,
)

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """One picture of every method: for whom, of what, from which seed."""

    person: KnownChoice
    split: TestSplit
    prompt: str
    seed: int


@dataclass(frozen=True)
class Method:
    """Who paints: an adapter and what it is given of each task's person; the base has neither.

    trained: what the adapter says of its training.
    """

    name: str
    adapter: Path | None
    user_emb: Sequence[FloatArray | None]
    trained: Mapping[str, str]


def readable_people(config: WinRatesConfig, split: TestSplit) -> list[KnownChoice]:
    """The split's people whose first four choices the VLM could read."""
    read = {
        person["user_id"]
        for person in read_profiles(config.data)
        if all(failed["set"] != 0 for failed in person["failed"])
    }
    return known_choices(config.data, split, config.people, among=read)


def make_tasks(
    config: WinRatesConfig, people: Mapping[TestSplit, Sequence[KnownChoice]]
) -> list[Task]:
    """What is painted, person by person."""
    asked = [
        (person, split, caption)
        for split in SPLITS
        for person in people[split]
        for caption in person.captions[: config.prompts]
    ]
    first_seed = FIRST_SEED + 1_000_000 * config.seed
    return [
        Task(person, split, caption, first_seed + index)
        for index, (person, split, caption) in enumerate(asked)
    ]


def make_methods(config: WinRatesConfig, pipeline: Pipeline, tasks: Sequence[Task]) -> list[Method]:
    """The base and every adapter, each loaded once to see that it fits; and another's profile.

    Raises ValueError for adapters that read other embeddings, or were trained on another base or
    other data than each other, as far as they say.
    """
    encoder_id = read_manifest(config.data)["provenance"]["encoder_id"]
    features_of = FeaturesOfPeople(
        config.data,
        SPLITS,
        [task.person.user for task in tasks],
        config.answers,
        config.preset,
        config.weights_dir,
        config.device,
    )
    methods = [Method(BASE, None, [None] * len(tasks), {})]
    for name, path in config.adapters.items():
        trained = adapter_of(path, get_args(Features)).extra
        features = cast(Features, trained["user"])
        if features == "vlm" and trained["encoder_id"] != encoder_id:
            raise ValueError(
                f"{path} reads embeddings of {trained['encoder_id']!r}, "
                f"{config.data} holds those of {encoder_id!r}"
            )
        pipeline.use_adapter(path)
        user_emb = features_of.of(features, pipeline.preset.user_emb_dim)
        methods.append(Method(name, path, user_emb, trained))
    for key in ("base_sha256", "data_sha256"):
        found = {method.trained[key] for method in methods if key in method.trained}
        if len(found) > 1:
            raise ValueError(f"the adapters were trained with different {key}: {sorted(found)}")
    return [*methods, another(methods, tasks)] if config.another else methods


def another(methods: Sequence[Method], tasks: Sequence[Task]) -> Method:
    """The first adapter, told another person's of the same split in the place of everybody's own.

    Raises ValueError when it tells nobody apart, and for a split of one person.
    """
    own = methods[1]
    if own.trained["user"] == "none":
        raise ValueError(
            f"{own.name!r} tells nobody apart: name another first, or set another to false"
        )
    first_of = {(task.split, task.person.user): n for n, task in reversed([*enumerate(tasks)])}
    told = []
    for task in tasks:
        people = [user for split, user in first_of if split == task.split]
        if len(people) < 2:
            raise ValueError(f"{task.split} is one person: there is no other; set another to false")
        other = people[people.index(task.person.user) - 1]
        told.append(own.user_emb[first_of[task.split, other]])
    return Method(ANOTHER, own.adapter, told, own.trained)
