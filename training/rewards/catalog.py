"""Rewards by name, from where a configuration says their files are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from ppd_model.files.artifact import sha256_of
from ppd_model.pipeline import MINI_WEIGHTS_DIR
from training.jobs.configuration import Configuration
from training.rewards.picture_tower import FILE as TOWER_FILE
from training.rewards.picture_tower import TEXT_ENCODER, load_tower, text_encoder_of
from training.rewards.published import FILES, load_published
from training.rewards.reward import Reward
from training.rewards.world_rewards import AlignmentReward, LookReward, MeasuredLooks
from training.world.looks import Standardizer
from training.world.scene import LOOKS

JUDGE_DIR = Path("runs/mini/judge")
STANDARDIZER = "standardizer.json"


class RewardSources(Configuration):
    """Where rewards come from."""

    rewards_dir: Path | None = None
    """Folder with the public scorers' files (published.py, FILES)."""
    rewards_device: str = "cpu"
    """Torch device of the public scorers."""
    rewards_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the public scorers."""
    rewards_narrow: bool = False
    """Whether these are a few values wide, as rehearsals have them; published ones are not."""
    world_dir: Path | None = None
    """Mini's weights and standardizer.json, for the world's rewards; null: as shipped."""
    tower: Path = JUDGE_DIR / TOWER_FILE
    """The pictures' side of mini's text encoder, of training.rewards.picture_tower."""


def load_rewards(names: Sequence[str], sources: RewardSources) -> list[Reward]:
    """The rewards of these names, in order.

    Raises ValueError for a name that is unknown or comes twice and for a published reward without
    `rewards_dir`; FileNotFoundError and ArtifactError as their loaders do.
    """
    if len(set(names)) != len(names) or not names:
        raise ValueError(f"rewards {list(names)}: expected one or more, each once")
    world_dir = sources.world_dir or MINI_WEIGHTS_DIR
    rewards: list[Reward] = []
    measured: MeasuredLooks | None = None
    for name in names:
        if name in LOOKS:
            path = world_dir / STANDARDIZER
            measured = measured or MeasuredLooks(Standardizer.load(path))
            rewards.append(LookReward(name, f"standardizer-{sha256_of(path)[:12]}", measured))
        elif name == AlignmentReward.name:
            rewards.append(_load_alignment(world_dir, sources.tower))
        else:
            rewards.append(_load_published(name, sources))
    return rewards


def _load_alignment(world_dir: Path, tower: Path) -> AlignmentReward:
    text = world_dir / TEXT_ENCODER
    loaded = load_tower(tower, world_dir)
    identity = f"text-encoder-{sha256_of(text)[:12]}.tower-{sha256_of(tower)[:12]}"
    return AlignmentReward(identity, text_encoder_of(world_dir), loaded)


def _load_published(name: str, sources: RewardSources) -> Reward:
    if name not in FILES:
        known = ", ".join((*FILES, AlignmentReward.name, *LOOKS))
        raise ValueError(f"no reward {name!r}; known: {known}")
    if sources.rewards_dir is None:
        raise ValueError(f"reward {name!r} needs rewards_dir, a folder with {FILES[name]}")
    dtype = getattr(torch, sources.rewards_dtype)
    return load_published(
        name,
        sources.rewards_dir,
        sources.rewards_device,
        dtype,
        narrowed=sources.rewards_narrow,
    )
