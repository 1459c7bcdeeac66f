"""The processes of one run: whose shards are whose, and how far each is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from training.data.shards import ShardFolder

BARRIER_TIMEOUT = timedelta(days=14)
"""Processes wait for each other at the end of each kind of shard, and may wait long."""


@dataclass(frozen=True)
class Worker:
    """This process among those of the run."""

    index: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    wait: Callable[[], None] = lambda: None

    @property
    def is_first(self) -> bool:
        """Whether this one writes what there is one of."""
        return self.index == 0

    def shards(self, total: int, size: int) -> Iterator[tuple[int, range]]:
        """Number and members of the shards that are this process's."""
        for shard in range(self.index, -(-total // size), self.count):
            yield shard, range(shard * size, min((shard + 1) * size, total))


def open_folder(path: Path, made_with: dict[str, Any], resume: bool, worker: Worker) -> ShardFolder:
    """The folder, opened by the first process and then by the others."""
    if worker.is_first:
        folder = ShardFolder(path, made_with, resume)
    worker.wait()
    return folder if worker.is_first else ShardFolder(path, made_with, resume=True)


class Progress:
    """Prints how far this process is, and for how long it still has to go."""

    def __init__(self, what: str, total: int, worker: Worker) -> None:
        self._what, self._total = what, total
        self._share = f" (process {worker.index})" if worker.count > 1 else ""
        self._left = total / worker.count
        self._made = 0
        self._started_s = time.monotonic()

    def passed(self, count: int) -> None:
        self._left -= count

    def made(self, count: int) -> None:
        self._made += count
        self._left -= count
        rate = self._made / (time.monotonic() - self._started_s)
        print(
            f"{self._what}{self._share}: {self._made} of {self._total}, {rate:.1f}/s, "
            f"eta {max(0.0, self._left) / rate:.0f} s",
            flush=True,
        )
