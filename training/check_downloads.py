"""Everything that the paper's experiments read, opened before the first long job starts.

    python -m training.check_downloads --config training/configs/stable_cascade_downloads.yaml

Files of Pick-a-Pic: that all shards of a split are there, with the columns they should have.
Prompts: how many. Scorers: that they load exactly, and score a picture. The model's weights have a
check of their own, `ppd models verify`. Ends with status 1 when something is missing or wrong.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ppd_model.files.artifact import ArtifactError
from training.data.pickapic import PickAPic
from training.jobs.command_line import run_job
from training.rewards.catalog import RewardSources, load_rewards
from training.synthetic_users.prompt_lists import load_prompts

SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(-[0-9a-f]+)?\.parquet")
"""How the hub names the files of a split."""


class DownloadsConfig(RewardSources):
    """What should be there."""

    data: dict[str, str]
    """Parquet files of each split: files, folders or patterns."""
    prompts: tuple[str, ...]
    """Files of prompts."""
    rewards: tuple[str, ...]
    """Scorers."""


def check(config: DownloadsConfig) -> None:
    """Look at everything and print what was found. Exits with status 1 where there is a fault."""
    faults = 0
    for name, look in looks(config):
        try:
            print(f"ok      {name}: {look()}", flush=True)
        except (OSError, ValueError, ArtifactError) as error:
            print(f"FAULT   {name}: {error}", flush=True)
            faults += 1
    if faults:
        raise SystemExit(1)


def looks(config: DownloadsConfig) -> Iterator[tuple[str, Callable[[], str]]]:
    """What is looked at, each by its name."""
    for split, places in config.data.items():
        yield f"Pick-a-Pic {split}", lambda places=places: shards(places)  # type: ignore[misc]
    for path in config.prompts:
        yield path, lambda path=path: f"{len(load_prompts(path))} prompts"  # type: ignore[misc]
    for name in config.rewards:
        yield f"reward {name}", lambda name=name: scored(name, config)  # type: ignore[misc]


def shards(places: str) -> str:
    """How much those files hold. Raises ValueError where a file of a numbered set is missing."""
    files = PickAPic([places])
    missing = missing_shards(files.files)
    if missing:
        raise ValueError(f"{len(missing)} files missing, the first is {missing[0]}")
    size_bytes = sum(path.stat().st_size for path in files.files)
    return f"{len(files.files)} files, {len(files):,} rows, {size_bytes / 1e9:.3f} GB"


def missing_shards(files: Sequence[Path]) -> list[str]:
    """Names of what is not there of sets whose files say how many they are."""
    found: dict[tuple[str, int], set[int]] = defaultdict(set)
    for path in files:
        if match := SHARD.fullmatch(path.name):
            found[match[1], int(match[3])].add(int(match[2]))
    return [
        f"{kind}-{number:05d}-of-{count:05d}"
        for (kind, count), numbers in sorted(found.items())
        for number in range(count)
        if number not in numbers
    ]


def scored(name: str, config: DownloadsConfig) -> str:
    """A grey picture's score."""
    (reward,) = load_rewards((name,), config)
    picture_1HW3 = np.full((1, 224, 224, 3), 127, dtype=np.uint8)
    return (
        f"{reward.identity}; a grey picture scores {reward.score(picture_1HW3, ['a cat'])[0]:.2f}"
    )


if __name__ == "__main__":
    run_job(check, DownloadsConfig, __doc__)
