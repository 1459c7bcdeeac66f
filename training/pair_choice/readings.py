"""What the VLM reads in the answers after each pair, and how near it comes to the taste.

Legend: U people, N answers, D embedding, L looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from ppd_model.user_encoder import UserEncoder
from training.data.preferences import CHOICES_PER_PROFILE
from training.data.shards import ShardFolder, read_shards
from training.pair_choice.pair_choice_config import PairChoiceConfig
from training.quiz.answered_sets import read_sets
from training.quiz.pair_strategies import (
    Asked,
    FloatArray,
    QuizPool,
    Strategy,
)
from training.quiz.quizzes import choices_of
from training.reports.statistics import clustered_mean, ridge_probe


def sets_of(answers: int) -> list[tuple[int, ...]]:
    """The sets of four that stand for `answers` answers, as places among them.

    Fewer than four are shown again in turn; of more, the sets lie evenly and may overlap.
    """
    if answers < CHOICES_PER_PROFILE:
        return [tuple(place % answers for place in range(CHOICES_PER_PROFILE))]
    count = -(-answers // CHOICES_PER_PROFILE)
    starts = np.linspace(0, answers - CHOICES_PER_PROFILE, count).round().astype(int).tolist()
    return [tuple(range(start, start + CHOICES_PER_PROFILE)) for start in starts]


def embed(
    asked: Mapping[Strategy, list[Asked]],
    pool: QuizPool,
    encoder: UserEncoder,
    config: PairChoiceConfig,
    resume: bool,
) -> dict[str, dict[str, FloatArray]]:
    """For each strategy the embeddings after n answers, "mean" and "latest", U x N x D.

    Raises ValueError when the VLM could not read a set.
    """
    made_with = config.model_dump(
        mode="json", include={"people", "split", "first_person", "answers", "near_best", "seed"}
    )
    made_with |= {"encoder": encoder.encoder_version, "pairs": pool.pair_ids}
    folder = ShardFolder(config.out / "embeddings", made_with, resume)
    wanted = sorted({places for n in range(1, config.answers + 1) for places in sets_of(n)})
    found: dict[str, dict[str, FloatArray]] = {}
    for strategy, quizzes in asked.items():
        name = f"{strategy}.safetensors"
        if not folder.has(name):
            many = [choices_of(quiz, pool, places) for quiz in quizzes for places in wanted]
            read = read_sets(encoder, many, batch=config.encode_batch, what=strategy).complete()
            folder.write(name, {"user_emb_ED": read.user_emb_ED})
        emb_ED = load_file(folder.folder / name)["user_emb_ED"].double().numpy()
        emb_UWD = emb_ED.reshape(len(quizzes), len(wanted), -1)
        of_set = {places: emb_UWD[:, place] for place, places in enumerate(wanted)}
        numbers = range(1, config.answers + 1)
        found[strategy] = {
            "mean": np.stack(
                [np.mean([of_set[places] for places in sets_of(n)], axis=0) for n in numbers],
                axis=1,
            ),
            "latest": np.stack([of_set[sets_of(n)[-1]] for n in numbers], axis=1),
        }
    folder.finish()
    return found


def probe(
    embedded: dict[str, dict[str, FloatArray]], probe_data: Path
) -> dict[str, dict[str, FloatArray]]:
    """Tastes as a ridge regression reads them from embeddings, U x N x L."""
    shards = read_shards(probe_data, "people-")
    seen_ED = np.concatenate([shard["user_emb_ED"].double().numpy() for shard in shards])
    taste_EL = np.concatenate(
        [shard["taste_UL"].double().numpy()[shard["person_E"].numpy()] for shard in shards]
    )
    read: dict[str, dict[str, FloatArray]] = {}
    for strategy, ways in embedded.items():
        read[strategy] = {}
        for way, emb_UND in ways.items():
            flat_EL = ridge_probe(seen_ED, taste_EL, emb_UND.reshape(-1, emb_UND.shape[-1]))
            shape_UN = emb_UND.shape[:2]
            read[strategy][way] = flat_EL.reshape(*shape_UN, -1).astype(np.float64)
    return read


def cosines(
    found: dict[str, FloatArray], taste_UL: FloatArray, config: PairChoiceConfig
) -> dict[str, Any]:
    """Mean cosine to the true taste by strategy and number of answers, and gains over "random"."""
    rng = np.random.default_rng([config.seed, 23])
    cosine_UN = {}
    for name, estimate_UNL in found.items():
        length_UN = (
            np.linalg.norm(estimate_UNL, axis=-1) * np.linalg.norm(taste_UL, axis=-1)[:, None]
        )
        cosine_UN[name] = (estimate_UNL * taste_UL[:, None]).sum(-1) / np.maximum(length_UN, 1e-12)
    return by_strategy(cosine_UN, range(1, config.answers + 1), rng)


def by_strategy(
    value_UN: dict[str, FloatArray], numbers: Sequence[int], rng: np.random.Generator
) -> dict[str, Any]:
    """Means with intervals over people, and the same of the differences from "random"."""

    def row(values: FloatArray) -> dict[str, Any]:
        person = np.arange(len(values))
        return {
            str(n): clustered_mean(values[:, place], person, rng).to_dict()
            for place, n in enumerate(numbers)
        }

    report: dict[str, Any] = {"of": {name: row(values) for name, values in value_UN.items()}}
    if "random" in value_UN:
        report["over_random"] = {
            name: row(values - value_UN["random"])
            for name, values in value_UN.items()
            if name != "random"
        }
    return report
