"""One trained adapter on the validation captions: what the paper chooses beta by (B.1).

For synthetic users each reward is measured on the pictures made for the user who likes it; for
adapters without users on their one picture; for people, on pictures of their own validation
captions, made for them. `training.choose_beta` compares what several runs wrote.

Legend: A rewards, K pictures, D embedding.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ppd_model.pipeline import Pipeline
from ppd_model.types import ImageRequest
from training.data.dataset import load_pairs
from training.data.shards import read_manifest, verified
from training.jobs.configuration import git_commit
from training.jobs.files import write_json
from training.jobs.shared_options import (
    Device,
    GuidanceScale,
    ModelName,
    Out,
    PersonalizeBelow,
    PictureBatch,
    SamplingSteps,
    Seed,
    Threads,
    WeightsDir,
)
from training.rewards.catalog import RewardSources, load_rewards
from training.rewards.reward import Reward
from training.synthetic_users.arms import FIRST_SEED, adapter_of, everybody, one_hot
from training.synthetic_users.comparison import check_order
from training.synthetic_users.table_one import mean

FloatArray = NDArray[np.float32]
VALIDATION_SEED = FIRST_SEED - 100_000_000


class ScoreConfig(RewardSources):
    """One adapter, scored on validation captions."""

    preset: ModelName
    weights_dir: WeightsDir = None
    device: Device = "cpu"
    adapter: Path
    """The adapter file."""
    data: Path
    """The folder that the adapter was trained on."""
    out: Out
    rewards: tuple[str, ...]
    """What scores the pictures."""
    captions: int = 500
    """So many validation captions, evenly chosen; the paper has 500."""
    steps: SamplingSteps = 30
    guidance_scale: GuidanceScale = 4.0
    personalize_below: PersonalizeBelow = None
    batch: PictureBatch = 32
    threads: Threads = 2
    seed: Seed = 0


def score(config: ScoreConfig) -> dict[str, Any]:
    """Paint and score; writes the json file `out` and returns what it holds.

    Raises ValueError when the data have no validation pairs or were relabelled by other rewards.
    """
    torch.set_num_threads(config.threads)
    spec = adapter_of(config.adapter, ("one_hot", "none", "vlm", "taste", "posterior"))
    rewards = load_rewards(config.rewards, config)
    pipeline = Pipeline.load(config.preset, config.weights_dir, config.device, with_adapter=False)
    pipeline.set_personalize_below(config.personalize_below)
    pipeline.use_adapter(config.adapter)
    width = pipeline.preset.user_emb_dim
    user = spec.extra["user"]
    texts, emb_KD = validation_people(config, user, width)
    measured: dict[str, Any] = {}
    if user == "one_hot":
        check_order(config.data, config.rewards)
        for a, reward in enumerate(rewards):
            own_KD = [one_hot(a, len(rewards), width)] * len(texts)
            scores_1K = paint(pipeline, texts, own_KD, [reward], config)
            measured[reward.name] = summary(scores_1K[0])
    else:
        scores_AK = paint(pipeline, texts, emb_KD, rewards, config)
        measured = {
            reward.name: summary(scores_K)
            for reward, scores_K in zip(rewards, scores_AK, strict=True)
        }
    record = {
        "adapter": str(config.adapter),
        "adapter_version": pipeline.adapter_version,
        "beta": float(spec.extra["beta"]),
        "trained": spec.extra,
        "commit": git_commit(),
        "captions": len(texts),
        "seed": config.seed,
        "steps": config.steps,
        "guidance_scale": config.guidance_scale,
        "personalize_below": pipeline.preset.personalize_below,
        "rewards": measured,
    }
    config.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(config.out, record)
    print(json.dumps(record["rewards"], indent=2))
    return record


def validation_people(
    config: ScoreConfig, user: str, width: int
) -> tuple[list[str], list[FloatArray]]:
    """Captions to paint and for whom: people with their own captions, or all alike."""
    known = user if user in ("vlm", "taste", "posterior") else "none"
    pairs = load_pairs(config.data, known, width, splits=("validation",))  # type: ignore[arg-type]
    manifest = read_manifest(config.data)
    captions = [
        text
        for path in verified(config.data, manifest, "texts-")
        for text in json.loads(path.read_text(encoding="utf-8"))
    ]
    person_P = pairs.person_P if known != "none" else torch.zeros_like(pairs.person_P)
    asked_Q2 = torch.unique(torch.stack([pairs.caption_P, person_P], dim=1), dim=0)
    count = min(config.captions, len(asked_Q2))
    asked_K2 = asked_Q2[torch.arange(count) * len(asked_Q2) // count].tolist()
    texts = [captions[caption] for caption, _ in asked_K2]
    if known == "none":
        return texts, [everybody(width)] * len(texts)
    first_U = pairs.first_embedding_U
    return texts, [pairs.user_emb_ED[first_U[person]].numpy() for _, person in asked_K2]


def paint(
    pipeline: Pipeline,
    texts: Sequence[str],
    emb_KD: Sequence[FloatArray],
    rewards: Sequence[Reward],
    config: ScoreConfig,
) -> FloatArray:
    """Scores of one picture for each caption and embedding, A x K."""
    parts = []
    for first in range(0, len(texts), config.batch):
        prompts = texts[first : first + config.batch]
        requests = [
            ImageRequest(
                prompt=prompt,
                seed=VALIDATION_SEED + 1_000_000 * config.seed + first + index,
                user_emb_D=emb_KD[first + index],
                steps=config.steps,
                guidance_scale=config.guidance_scale,
            )
            for index, prompt in enumerate(prompts)
        ]
        images = np.stack([one.image_HWC for one in pipeline.generate(requests)])
        parts.append(np.stack([reward.score(images, prompts) for reward in rewards]))
        print(f"{first + len(prompts)}/{len(texts)}", flush=True)
    return np.concatenate(parts, axis=1)


def summary(scores_K: FloatArray) -> dict[str, float | int]:
    """The mean with its interval over captions, and the standard deviation over captions."""
    estimate = mean(scores_K, np.random.default_rng(43))
    return estimate.to_dict() | {"sd": float(scores_K.std())}
