"""Whose row comes next: start-time fair queueing between owners, by what a row costs.

Each owner has a virtual start: that of the present turn when they come with nothing in the queue,
and later by the cost of each row that they were served. The owner with the least start is served,
and the queue's virtual time is the start of what was served last. So an owner with one picture
goes before the second of an owner with hundreds, whatever each costs, and no one saves up credit
while away.

An owner may be one of several: `shop/ann` and `shop/bob` share the turns of `shop` in the same way,
so that who has many names has no more turns for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass
class _Owner(Generic[Item]):
    """With what waits: its own, or that of the owners below it."""

    start: float = 0.0
    virtual: float = 0.0
    """The turn of those below that is being served."""
    waiting: deque[tuple[int, float, Item]] = field(default_factory=deque)
    """Number of arrival, cost, item; oldest first."""
    below: dict[str, _Owner[Item]] = field(default_factory=dict)

    @property
    def first(self) -> int | None:
        """The earliest arrival here or below; None where nothing waits."""
        theirs = [one.first for one in self.below.values()]
        mine = [self.waiting[0][0]] if self.waiting else []
        return min([*mine, *(one for one in theirs if one is not None)], default=None)

    def heads(self) -> Iterator[tuple[list[_Owner[Item]], _Owner[Item]]]:
        """Every line that waits, in fair order, with the owners above it, the nearest last."""
        if self.waiting:
            yield [], self
        order = [(one.start, one.first, name) for name, one in self.below.items()]
        for _, _, name in sorted((s, f, name) for s, f, name in order if f is not None):
            for above, line in self.below[name].heads():
                yield [self, *above], line

    def forget_the_served(self) -> None:
        """Who waits for nothing and owes nothing is as good as new."""
        for name, one in list(self.below.items()):
            one.forget_the_served()
            if one.first is None and one.start <= self.virtual:
                del self.below[name]


class FairQueue(Generic[Item]):
    """Rows that wait, by owner. Not locked: the user of it locks."""

    def __init__(self) -> None:
        self._all = _Owner[Item]()
        self._arrivals = 0
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, owner: str, cost: float, item: Item) -> None:
        """Put a row at the end of its owner's own line. `cost` is positive."""
        if cost <= 0:
            raise ValueError(f"cost must be positive, got {cost}")
        line = self._all
        for name in owner.split("/"):
            one = line.below.setdefault(name, _Owner(line.virtual))
            if one.first is None:
                one.start = max(one.start, line.virtual)
            line = one
        line.waiting.append((self._arrivals, cost, item))
        self._arrivals += 1
        self._length += 1

    def pop(self, has_room: Callable[[Item], bool]) -> Item | None:
        """The next row in fair order of those at the head of a line for which there is room."""
        for above, line in self._all.heads():
            _, cost, item = line.waiting[0]
            if not has_room(item):
                continue
            line.waiting.popleft()
            self._length -= 1
            for upper, one in zip(above, [*above[1:], line], strict=True):
                upper.virtual = max(upper.virtual, one.start)
                one.start += cost
            self._all.forget_the_served()
            return item
        return None

    def take_out(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Remove rows that shall not be served; their owners pay nothing for them."""
        removed: list[Item] = []
        for _, line in list(self._all.heads()):
            kept = deque(entry for entry in line.waiting if not unwanted(entry[2]))
            removed += [item for _, _, item in line.waiting if unwanted(item)]
            line.waiting = kept
        self._length -= len(removed)
        self._all.forget_the_served()
        return removed
