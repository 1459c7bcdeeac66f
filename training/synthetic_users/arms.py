"""Arms of a comparison: who paints, for whom; scored over one list of prompts, once.

Every arm paints the same prompts from the same seeds. An arm's scores are written when it is
done, with everything they depend on, and are taken from there when a comparison goes on.

Legend: A rewards, K prompts, D embedding.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ppd_model.files.artifact import ArtifactSpec, load_artifact, sha256_of
from ppd_model.pipeline import Pipeline
from training.jobs.configuration import differences
from training.jobs.files import write_json
from training.jobs.picture_batches import picture_requests, sampling_of
from training.jobs.shared_options import (
    Device,
    ModelJob,
    PersonalizeBelow,
    SamplingOptions,
    Threads,
)
from training.precompute.processes import Worker
from training.rewards.catalog import RewardSources, load_rewards
from training.rewards.reward import Reward
from training.synthetic_users.prompt_lists import PromptList
from training.synthetic_users.scored_parts import forget, score_parts

FloatArray = NDArray[np.float32]
FIRST_SEED = 700_000_000
"""Of the first prompt's picture: far from the seeds of pictures that are trained on."""


@dataclass(frozen=True)
class Arm:
    """name: also of its file. adapter: None is the base model. embedding_D: whom it paints for;
    None with the base only."""

    name: str
    adapter: Path | None
    embedding_D: FloatArray | None


class ScoredPictures(RewardSources, ModelJob, SamplingOptions):
    """A model's pictures, and the rewards that score them."""

    device: Device = "cpu"
    rewards: tuple[str, ...]
    """In the order of the relabelled data, which is that of the one-hot users."""
    personalize_below: PersonalizeBelow = None
    threads: Threads = 2

    def of_process(self, worker: Worker) -> Self:
        """The same with the process's own device, where there are several processes."""
        own = str(worker.device)
        return self.model_copy(
            update={"device": own, "rewards_device": own} if worker.count > 1 else {}
        )

    def load(self) -> tuple[Pipeline, list[Reward]]:
        """The model without an adapter, and the rewards."""
        torch.set_num_threads(self.threads)
        rewards = load_rewards(self.rewards, self)
        pipeline = Pipeline.load(self.preset, self.weights_dir, self.device, with_adapter=False)
        pipeline.set_personalize_below(self.personalize_below)
        return pipeline, rewards


class ArmScores:
    """Scores arms in a folder: `arms/NAME.json`, and a strip of pictures beside it.

    With `resume`, arms, and parts of one, that are there and depend on the same are not painted
    again; processes share an arm's parts. Raises ValueError for a folder that holds arms otherwise.
    """

    def __init__(
        self, config: ScoredPictures, prompts: PromptList, resume: bool, worker: Worker
    ) -> None:
        self.started_s = time.monotonic()
        self.config = config.of_process(worker)
        self.prompts = prompts
        self.worker = worker
        self.folder = config.out / "arms"
        if worker.is_first:
            if self.folder.exists() and any(self.folder.iterdir()) and not resume:
                raise ValueError(f"{config.out} holds arms: pass --resume or choose another folder")
            self.folder.mkdir(parents=True, exist_ok=True)
        worker.wait()
        self.pipeline, self.rewards = self.config.load()

    def score(self, arm: Arm) -> FloatArray:
        """All rewards of the arm's pictures, A x K.

        Raises ValueError when the folder holds this arm made with something else.
        """
        path = self.folder / f"{arm.name}.json"
        identity = self.identity(arm)
        parts = self.folder / f"{arm.name}.parts"
        found = path.exists()
        self.worker.wait()  # until all have looked
        if not found:
            scores_AK, shown = self._paint(arm, identity, parts)
            names = [reward.name for reward in self.rewards]
            record = {
                "identity": identity,
                "scores": dict(zip(names, scores_AK.tolist(), strict=True)),
            }
            if self.worker.is_first:
                strip = Image.fromarray(np.concatenate(shown, axis=1))
                strip.save(path.with_suffix(".webp"), quality=90)
                write_json(path, record, indent=None)
        forget(parts, self.worker)
        record = json.loads(path.read_text())
        if differing := differences(record["identity"], identity):
            raise ValueError(f"{path} was made with another {differing}")
        return np.array([record["scores"][r.name] for r in self.rewards], dtype=np.float32)

    def identity(self, arm: Arm) -> dict[str, Any]:
        emb_D = arm.embedding_D
        return {
            "model": self.pipeline.model_id,
            "adapter": None if arm.adapter is None else sha256_of(arm.adapter),
            "embedding": None if emb_D is None else [float(x) for x in np.trim_zeros(emb_D, "b")],
            "prompts": self.prompts.sha256,
            "rewards": {reward.name: reward.identity for reward in self.rewards},
            **sampling_of(self.config),
            "personalize_below": self.pipeline.preset.personalize_below,
            "seed": self.config.seed,
        }

    def strip(self, arm: Arm) -> NDArray[np.uint8]:
        """The pictures of the first prompts, side by side, once the arm is scored."""
        with Image.open(self.folder / f"{arm.name}.webp") as image:
            return np.asarray(image.convert("RGB"))

    def _paint(
        self, arm: Arm, identity: dict[str, Any], parts: Path
    ) -> tuple[FloatArray, list[NDArray[np.uint8]]]:
        config, count, adapter = self.config, len(self.prompts), arm.adapter
        first_seed = FIRST_SEED + 1_000_000 * config.seed
        seeds = range(first_seed, first_seed + count)
        requests = picture_requests(config, self.prompts.prompts, seeds, [arm.embedding_D] * count)
        return score_parts(
            self.pipeline,
            requests,
            self.rewards,
            parts,
            identity,
            self.worker,
            batch=config.batch,
            prepare=lambda: None if adapter is None else self.pipeline.use_adapter(adapter),
        )


def adapter_of(path: Path, users: Sequence[str]) -> ArtifactSpec:
    """What an adapter says of itself.

    Raises ValueError when it was trained with something else in the place of a person than one of
    `users` ("one_hot", "none", "vlm", ...), ArtifactError for a file that is no adapter.
    """
    _, spec = load_artifact(path, kind="adapter")
    found = spec.extra.get("user", "unknown")
    if found not in users:
        raise ValueError(f"{path} was trained with user {found!r}, expected {' or '.join(users)}")
    return spec


def one_hot(reward: int, rewards: int, width: int) -> FloatArray:
    """The embedding of the synthetic user who likes that reward, `width` wide (paper, 5.1)."""
    return weighted(tuple(float(index == reward) for index in range(rewards)), width)


def weighted(weights_A: tuple[float, ...], width: int) -> FloatArray:
    """The embedding of somebody to whom rewards count that much (paper, Fig. 4)."""
    emb_D = np.zeros(width, dtype=np.float32)
    emb_D[: len(weights_A)] = weights_A
    return emb_D


def everybody(width: int) -> FloatArray:
    """The constant embedding with which train_dpo trains where there is no user."""
    return np.ones(width, dtype=np.float32)
