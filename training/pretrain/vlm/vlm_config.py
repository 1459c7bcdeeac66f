"""Every option of the vision-language model's training, and which pictures it trains on."""

from __future__ import annotations

from pathlib import Path

from training.jobs.configuration import Configuration
from training.jobs.shared_options import Out, Seed, Threads
from training.world.store import PictureStore


class StepsConfig(Configuration):
    """How a training steps."""

    weight_decay: float = 0.05
    """Of AdamW."""
    warmup_steps: int = 60
    """Steps over which the learning rate rises."""
    log_every: int = 20
    """Steps between lines of the log."""
    checkpoint_every_s: float = 180
    """Seconds between checkpoints."""
    evaluate_every_s: float = 600
    """Seconds between evaluations."""


class VlmConfig(StepsConfig):
    """One run: the vision tower, then the language model."""

    world: Path
    """Pictures that training.world.store painted."""
    out: Out
    seed: Seed = 1
    threads: Threads = 1
    holdout_share: float = 0.1
    """Share of the store, at its end, that is never trained on."""
    vocab_size: int = 1200
    """Of the tokenizer."""
    max_new_tokens: int = 160
    """Of a reading."""
    image_px: int = 128
    """Side of a picture."""
    patch_px: int = 32
    """Side of a patch."""
    vision_width: int = 192
    """Of the vision tower."""
    vision_layers: int = 3
    """Of the vision tower."""
    vision_batch: int = 48
    """Pictures of a step of the vision tower."""
    vision_steps: int = 800
    """Steps of the vision tower."""
    vision_lr: float = 1e-3
    """Learning rate of the vision tower."""
    width: int = 128
    """Of the language model."""
    layers: int = 6
    """Of the language model."""
    heads: int = 4
    """Of the language model."""
    mlp_width: int = 384
    """Of the language model."""
    language_pictures: int = 16000
    """Pictures, from the store's start, that transcripts are made of."""
    batch: int = 8
    """Transcripts of a step."""
    steps: int = 2200
    """Steps of the language model."""
    lr: float = 1.5e-3
    """Learning rate of the language model."""
    words_weight: float = 1.0
    """Of the loss of the words."""
    looks_weight: float = 1.0
    """Of the loss of each picture's looks."""
    deltas_weight: float = 0.5
    """Of the loss of the looks' differences within pairs."""
    taste_weight: float = 8.0
    """Of the loss of the taste."""
    prior_size: int = 8192
    """Tastes that answers are weighed against."""
    evaluation_people: int = 512
    """People who are read in one."""


def trained_on(config: VlmConfig, store: PictureStore) -> slice:
    """The part of the store that may be trained on."""
    return slice(0, round(len(store) * (1 - config.holdout_share)))


def held_out(config: VlmConfig, store: PictureStore) -> slice:
    """The part of the store that is only evaluated on."""
    return slice(round(len(store) * (1 - config.holdout_share)), len(store))
