"""Prompts, the pictures that the model paints for them, and what the world's own eyes say of these.

Legend: G groups, K prompts of a person, L looks, B pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ppd_model.pipeline import MINI_WEIGHTS_DIR, Pipeline
from training.content_classifier.network import ContentClassifier, load_classifier
from training.evaluate.evaluate_config import CLASSIFIER, PersonalModel
from training.jobs.picture_batches import painted, picture_requests
from training.jobs.shared_options import SolverOptions
from training.world import captions
from training.world.looks import Standardizer
from training.world.scene import CONTENTS, SETTINGS

FloatArray = NDArray[np.float32]
Pictures = NDArray[np.uint8]
ADAPTER_IS_OFF = None
SAME_WITHIN = 0.01
"""Scores (utility) this close are no win for either: rounding alone moves them by about as much
when the same picture is computed in another batch."""


@dataclass(frozen=True)
class Prompt:
    """What a picture is asked for: the words, the content they name, the seed."""

    text: str
    content: int
    seed: int


@dataclass(frozen=True)
class Shown:
    """Generated pictures with what the judge measured: looks (B x L), subject and setting (B)."""

    images: Pictures
    looks: FloatArray
    content_named: NDArray[np.int64]


@dataclass
class Judge:
    """The world's own eyes: measured looks, and a classifier of content."""

    standardizer: Standardizer
    classifier: ContentClassifier

    @classmethod
    def load(cls, weights_dir: Path | None, classifier: Path = CLASSIFIER) -> Judge:
        """With the standardizer that lies beside the model's weights; None: the shipped one."""
        path = (weights_dir or MINI_WEIGHTS_DIR) / "standardizer.json"
        return cls(Standardizer.load(path), load_classifier(classifier))

    def looks(self, images: Pictures, content_B: NDArray[np.int64]) -> FloatArray:
        """Looks in standard deviations within each picture's content."""
        return self.standardizer.looks(images, content_B)

    def judge(self, images: Pictures, prompts: Sequence[Prompt]) -> Shown:
        content_B = np.array([prompt.content for prompt in prompts])
        subject_B, setting_B = self.classifier.name(images)
        return Shown(images, self.looks(images, content_B), subject_B * len(SETTINGS) + setting_B)


@dataclass
class Painter:
    """Asks the pipeline for pictures in large batches, and the judge what they show."""

    pipeline: Pipeline
    judge: Judge
    options: SolverOptions
    strength: float = 1.0
    made: int = 0
    seconds: float = 0.0

    @classmethod
    def load(
        cls, config: PersonalModel, judge: Judge, options: SolverOptions, strength: float = 1.0
    ) -> Painter:
        pipeline = Pipeline.load(
            config.preset, config.weights_dir, with_adapter=config.adapter is None
        )
        if config.adapter is not None:
            pipeline.use_adapter(config.adapter)
        return cls(pipeline, judge, options, strength)

    def paint(
        self, what: str, prompts: Sequence[Prompt], user_emb: Sequence[FloatArray | None]
    ) -> Shown:
        """One picture for each prompt and embedding (None: the base model)."""
        texts, seeds = [prompt.text for prompt in prompts], [prompt.seed for prompt in prompts]
        requests = picture_requests(self.options, texts, seeds, user_emb, self.strength)
        started_s = time.monotonic()
        images = np.concatenate(list(painted(self.pipeline, requests, self.options.batch, what)))
        self.made += len(images)
        self.seconds += time.monotonic() - started_s
        return self.judge.judge(images, prompts)


def spread_contents(count: int, rng: np.random.Generator) -> list[int]:
    """`count` content ids: every content once before any comes twice."""
    rounds = -(-count // CONTENTS)
    order = np.concatenate([rng.permutation(CONTENTS) for _ in range(rounds)])
    return [int(content) for content in order[:count]]


def spread_prompts(count: int, first_seed: int, rng: np.random.Generator) -> list[Prompt]:
    """Prompts of contents that are spread evenly, their seeds one after the other."""
    contents = spread_contents(count, rng)
    return [prompt_of(content, first_seed + place, rng) for place, content in enumerate(contents)]


def prompt_of(content: int, seed: int, rng: np.random.Generator) -> Prompt:
    """A caption of that content in random words."""
    subject, setting = divmod(content, len(SETTINGS))
    return Prompt(captions.caption(subject, setting, rng), content, seed)
