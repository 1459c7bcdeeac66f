"""The running batches of an engine: one for each shape and number of user tokens, in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from ppd_model.engine.batch_group import BatchGroup
from ppd_model.engine.jobs import Key
from ppd_model.pipeline import Pipeline
from ppd_model.sampling.devices import DeviceSupport
from ppd_model.sampling.running_batch import RunningBatch

SHAPES_KEPT = 4


class BatchGroups:
    """Batches that were needed; of empty ones the latest few are kept."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._groups: dict[Key, BatchGroup] = {}
        self._turns: deque[Key] = deque()

    def __iter__(self) -> Iterator[BatchGroup]:
        return iter(list(self._groups.values()))

    def get(self, key: Key) -> BatchGroup | None:
        return self._groups.get(key)

    def get_or_make(self, key: Key, support: DeviceSupport) -> BatchGroup:
        """The batch of this key, made where there is none."""
        group = self._groups.get(key)
        if group is None:
            for other in [k for k, g in self._groups.items() if g.empty][:-SHAPES_KEPT]:
                del self._groups[other]
                self._turns.remove(other)
            group = BatchGroup(RunningBatch(self._pipeline, support, *key), support)
            self._groups[key] = group
            self._turns.append(key)
        return group

    def next(self) -> BatchGroup | None:
        """Batches with rows take turns, one step each."""
        for _ in range(len(self._turns)):
            key = self._turns[0]
            self._turns.rotate(-1)
            if self._groups[key].batch.rows:
                return self._groups[key]
        return None

    def clear(self) -> None:
        self._groups.clear()
        self._turns.clear()
