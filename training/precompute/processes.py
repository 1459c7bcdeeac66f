"""The processes of one run, and whose shards are whose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

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

    def missing(
        self, folder: ShardFolder, kind: str, total: int, size: int
    ) -> Iterator[tuple[str, slice]]:
        """This process's shards that the folder lacks, as `ShardFolder.missing`."""
        return folder.missing(kind, total, size, self.index, self.count)


def this_process() -> Worker:
    """This one among those that accelerate launched; alone where it launched none."""
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=BARRIER_TIMEOUT)
    return Worker(state.process_index, state.num_processes, state.device, state.wait_for_everyone)


def open_folder(path: Path, made_with: dict[str, Any], resume: bool, worker: Worker) -> ShardFolder:
    """The folder, opened by the first process and then by the others."""
    if worker.is_first:
        folder = ShardFolder(path, made_with, resume)
    worker.wait()
    return folder if worker.is_first else ShardFolder(path, made_with, resume=True)
