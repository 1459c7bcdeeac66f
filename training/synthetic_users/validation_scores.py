"""One trained adapter on the validation captions: what the paper chooses beta by (B.1).

For synthetic users each reward is measured on the pictures made for the user who likes it; for
adapters without users on their one picture; for people, on pictures of their own validation
captions, made for them. `training.choose_beta` compares what several runs wrote.

Legend: A rewards, K pictures, D embedding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt

from training.data.dataset import load_pairs
from training.data.shards import read_lists
from training.jobs.configuration import git_commit
from training.jobs.files import write_json
from training.jobs.picture_batches import picture_requests, sampling_of
from training.precompute.processes import Worker, this_process
from training.rewards.reward import Reward
from training.synthetic_users.arms import (
    FIRST_SEED,
    ScoredPictures,
    adapter_of,
    everybody,
    one_hot,
)
from training.synthetic_users.comparison import check_order
from training.synthetic_users.prompt_lists import load_prompts
from training.synthetic_users.scored_parts import forget, score_parts
from training.synthetic_users.table_one import mean

FloatArray = NDArray[np.float32]
VALIDATION_SEED = FIRST_SEED - 100_000_000


class ScoreConfig(ScoredPictures):
    """One adapter, scored on validation captions."""

    adapter: Path
    """The adapter file."""
    data: Path
    """The folder that the adapter was trained on."""
    prompts: str | None = None
    """A list in the place of the data's validation captions: Pick-a-Pic's validation_unique, which
    has the paper's 500; people are taken in turn then. Null: the data's own."""
    captions: PositiveInt = 500
    """So many validation captions, evenly chosen; the paper has 500."""


def score(
    config: ScoreConfig, resume: bool = False, worker: Worker | None = None
) -> dict[str, Any]:
    """Paint and score; writes the json file `out` and returns what it holds.

    Several processes share the pictures, and the first writes; parts are kept in a folder beside
    `out` until it is written. Raises ValueError where there are some and `resume` is off, and when
    the data have no validation pairs or were relabelled by other rewards.
    """
    spec = adapter_of(config.adapter, ("one_hot", "none", "vlm", "taste", "posterior"))
    worker = worker or this_process()
    config = config.of_process(worker)
    kept = config.out.with_suffix(".parts")
    if kept.exists() and not resume:
        raise ValueError(f"{kept} holds parts: pass --resume or choose another --out")
    worker.wait()  # until all have looked
    pipeline, rewards = config.load()
    pipeline.use_adapter(config.adapter)
    width = pipeline.preset.user_emb_dim
    user = spec.extra["user"]
    texts, emb_KD = validation_people(config, user, width)

    def scores_of(rewards: Sequence[Reward], emb_KD: Sequence[FloatArray]) -> FloatArray:
        first_seed = VALIDATION_SEED + 1_000_000 * config.seed
        seeds = range(first_seed, first_seed + len(texts))
        requests = picture_requests(config, texts, seeds, emb_KD)
        identities = {reward.name: reward.identity for reward in rewards}
        made_with = {
            "model": pipeline.model_id,
            "adapter": pipeline.adapter_version,
            "told": hashlib.sha256(b"".join(emb_D.tobytes() for emb_D in emb_KD)).hexdigest(),
            "prompts": list(texts),
            "rewards": identities,
            **sampling_of(config),
            "personalize_below": pipeline.preset.personalize_below,
            "seed": config.seed,
        }
        folder = kept / "-".join(identities)
        return score_parts(
            pipeline, requests, rewards, folder, made_with, worker, batch=config.batch
        )[0]

    if user == "one_hot":
        check_order(config.data, config.rewards)
        scores_AK = np.concatenate(
            [
                scores_of([reward], [one_hot(a, len(rewards), width)] * len(texts))
                for a, reward in enumerate(rewards)
            ]
        )
    else:
        scores_AK = scores_of(rewards, emb_KD)
    record = {
        "adapter": str(config.adapter),
        "adapter_version": pipeline.adapter_version,
        "beta": float(spec.extra["beta"]),
        "trained": spec.extra,
        "commit": git_commit(),
        "captions": len(texts),
        "prompts": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
        "seed": config.seed,
        **sampling_of(config),
        "personalize_below": pipeline.preset.personalize_below,
        "rewards": {
            reward.name: summary(scores_K)
            for reward, scores_K in zip(rewards, scores_AK, strict=True)
        },
    }
    if worker.is_first:
        write_json(config.out, record)
    forget(kept, worker)
    if not worker.is_first:
        return record
    print(json.dumps(record["rewards"], indent=2))
    return record


def validation_people(
    config: ScoreConfig, user: str, width: int
) -> tuple[list[str], list[FloatArray]]:
    """Captions to paint and for whom: people with their own captions, or all alike."""
    known = user if user in ("vlm", "taste", "posterior") else "none"
    if config.prompts is not None:
        return _listed(config, config.prompts, known, width)
    pairs = load_pairs(config.data, known, width, splits=("validation",))  # type: ignore[arg-type]
    captions = read_lists(config.data, "texts-")
    person_P = pairs.person_P if known != "none" else torch.zeros_like(pairs.person_P)
    asked_Q2 = torch.unique(torch.stack([pairs.caption_P, person_P], dim=1), dim=0)
    count = min(config.captions, len(asked_Q2))
    asked_K2 = asked_Q2[torch.arange(count) * len(asked_Q2) // count].tolist()
    texts = [captions[caption] for caption, _ in asked_K2]
    if known == "none":
        return texts, [everybody(width)] * len(texts)
    first_U = pairs.first_embedding_U
    return texts, [pairs.user_emb_ED[first_U[person]].numpy() for _, person in asked_K2]


def _listed(
    config: ScoreConfig, prompts: str, known: str, width: int
) -> tuple[list[str], list[FloatArray]]:
    """The list's prompts, each for another of the people who are trained on."""
    listed = load_prompts(prompts)
    texts = list(listed.first(min(config.captions, len(listed))).prompts)
    if known == "none":
        return texts, [everybody(width)] * len(texts)
    pairs = load_pairs(config.data, known, width, splits=("train",))  # type: ignore[arg-type]
    people = [place * pairs.people // len(texts) for place in range(len(texts))]
    return texts, [pairs.user_emb_ED[pairs.first_embedding_U[person]].numpy() for person in people]


def summary(scores_K: FloatArray) -> dict[str, float | int]:
    """The mean with its interval over captions, and the standard deviation over captions."""
    estimate = mean(scores_K, np.random.default_rng(43))
    return estimate.to_dict() | {"sd": float(scores_K.std())}
