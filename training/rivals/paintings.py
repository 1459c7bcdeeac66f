"""What every arm paints for a group of people, and the measures of it.

All arms paint the same prompts from the same seeds, each person's own. What the world's own eyes
say of the pictures is kept in a file for each arm and strength, so that a comparison that was
interrupted goes on.

Legend: U people, K prompts of a person, L looks, R = U * K comparisons, D embedding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from ppd_model.pipeline import Pipeline
from ppd_model.types import EncodedUser, ImageRequest
from training.evaluate.measures import encode
from training.evaluate.painting import (
    ADAPTER_IS_OFF,
    SAME_WITHIN,
    FloatArray,
    Judge,
    Prompt,
    spread_prompts,
)
from training.jobs.files import replacing
from training.jobs.picture_batches import painted, picture_requests
from training.quiz.quizzes import Person, make_quiz, quiz_people
from training.reports.statistics import Estimate, clustered_mean, wins
from training.rivals.arms import Arms
from training.rivals.likes_as_words import word_requests
from training.world import tastes
from training.world.people import SeedRange, person_seeds

FIRST_SEED = {"validate": 910_000_000, "test": 920_000_000, "train": 930_000_000}
"""Of the pictures of each group of people: far from others' seeds."""
ENCODE_BATCH = 32


@dataclass(frozen=True)
class Seen:
    """Looks of an arm's pictures (R x L), and whether each shows what was asked for."""

    looks_RL: FloatArray
    right_R: NDArray[np.bool_]


@dataclass
class Paintings:
    """People, what the VLM reads of each, and R prompts, person by person."""

    arms: Arms
    pipeline: Pipeline
    judge: Judge
    people: Sequence[Person]
    read: Sequence[EncodedUser]
    prompts: Sequence[Prompt]
    folder: Path
    _embeddings: dict[str, list[FloatArray]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        each = len(self.prompts) // len(self.people)
        self.person_R = np.repeat(np.arange(len(self.people)), each)
        self.taste_RL = np.stack([self.people[person].taste_L for person in self.person_R.tolist()])

    @classmethod
    def of(cls, arms: Arms, judge: Judge, split: SeedRange, people: int) -> Paintings:
        """The first people of that range of seeds, after the quiz's four pairs."""
        config = arms.config
        quiz = make_quiz("served", judge.looks, config.tie_below)
        asked = quiz_people(quiz, person_seeds(split, people))
        first_seed = FIRST_SEED[split] + 100_000 * config.seed
        rng = np.random.default_rng([config.seed, first_seed])
        return cls(
            arms=arms,
            pipeline=Pipeline.load(config.preset, config.weights_dir, with_adapter=False),
            judge=judge,
            people=asked,
            read=encode(arms.encoder, asked, ENCODE_BATCH),
            prompts=spread_prompts(config.prompts * people, first_seed, rng),
            folder=config.out / split,
        )

    def of_base(self) -> Seen:
        return self._seen("base", self._requests([ADAPTER_IS_OFF] * len(self.people), 0.0), "")

    def of_arm(self, name: str, strength: float) -> Seen:
        """Painted, or read from the folder."""
        if self.arms.config.arms[name].reads == "words":
            read = self._for_prompts(self.read)
            requests = word_requests(self.arms.config, self.prompts, read)
            return self._seen(name, requests, "")
        path = self.arms.adapter(name)
        self.pipeline.use_adapter(path)
        if name not in self._embeddings:
            width = self.pipeline.preset.user_emb_dim
            self._embeddings[name] = self.arms.embeddings(name, self.people, self.read, width)
        requests = self._requests(self._embeddings[name], strength)
        return self._seen(f"{name}-{strength:g}", requests, self.pipeline.adapter_version)

    def _for_prompts(self, of_people: Sequence[Any]) -> list[Any]:
        return [of_people[person] for person in self.person_R.tolist()]

    def _requests(
        self, user_emb: Sequence[FloatArray | None], strength: float
    ) -> list[ImageRequest]:
        return picture_requests(
            self.arms.config,
            [prompt.text for prompt in self.prompts],
            [prompt.seed for prompt in self.prompts],
            self._for_prompts(user_emb),
            strength,
        )

    def _seen(self, what: str, requests: Sequence[ImageRequest], adapter: str) -> Seen:
        path = self.folder / f"{what}.safetensors"
        identity = digest(requests, [self.pipeline.model_id, adapter])
        if path.exists():
            kept = load_file(path)
            if bytes(kept.pop("identity")).decode() != identity:
                raise ValueError(f"{path} was painted from other requests: choose another folder")
            return Seen(**kept)
        batches = list(painted(self.pipeline, requests, self.arms.config.batch, what))
        shown = self.judge.judge(np.concatenate(batches), self.prompts)
        asked_R = np.array([prompt.content for prompt in self.prompts])
        seen = Seen(shown.looks, shown.content_named == asked_R)
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            identity_X = np.frombuffer(identity.encode(), dtype=np.uint8)
            save_file({**vars(seen), "identity": identity_X}, unfinished)
        return seen


def digest(requests: Sequence[ImageRequest], beside: Sequence[str]) -> str:
    """sha256 of everything that pictures of these requests depend on."""
    found = hashlib.sha256(json.dumps(list(beside)).encode())
    for request in requests:
        values = vars(request) | {"user_emb_D": None}
        found.update(json.dumps(values, sort_keys=True).encode())
        if request.user_emb_D is not None:
            found.update(request.user_emb_D.tobytes())
    return found.hexdigest()


def against_base(group: Paintings, own: Seen, base: Seen) -> dict[str, Any]:
    """Wins by true taste, gain in standard deviations, and what is kept of right content."""
    kept_R = own.right_R[base.right_R].astype(np.float64)
    return {
        "wins": over(group, own, base),
        "gain_sd": mean_of(gains(group, own, base), group.person_R).to_dict(),
        "content_kept": mean_of(kept_R, group.person_R[base.right_R]).to_dict(),
        "content_right": float(own.right_R.mean()),
    }


def over(group: Paintings, ours: Seen, theirs: Seen) -> dict[str, float | int]:
    """How often people prefer ours by their true taste; a near-tie is half a win."""
    return mean_of(match(group, ours, theirs), group.person_R).to_dict()


def match(group: Paintings, ours: Seen, theirs: Seen) -> FloatArray:
    """1, .5 or 0 for each prompt."""
    ours_R = tastes.utility(group.taste_RL, ours.looks_RL)
    theirs_R = tastes.utility(group.taste_RL, theirs.looks_RL)
    return wins(ours_R, theirs_R, SAME_WITHIN)


def gains(group: Paintings, own: Seen, base: Seen) -> FloatArray:
    """Of the person's utility, in standard deviations, for each prompt."""
    gain_R: FloatArray = (group.taste_RL * (own.looks_RL - base.looks_RL)).sum(1)
    return gain_R


def mean_of(value_R: NDArray[Any], person_R: NDArray[np.int64]) -> Estimate:
    """With a 95 % interval that redraws people."""
    return clustered_mean(value_R, person_R, np.random.default_rng(72))
