"""Whose row comes next: start-time fair queueing between owners, by what a row costs.

Each owner has a virtual start: that of the present turn when they come with nothing in the queue,
and later by the cost of each row that they were served. The owner with the least start is served,
and the queue's virtual time is the start of what was served last. So an owner with one picture
goes before the second of an owner with hundreds, whatever each costs, and no one saves up credit
while away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass
class _Owner(Generic[Item]):
    start: float
    waiting: deque[tuple[int, float, Item]] = field(default_factory=deque)
    """Number of arrival, cost, item; oldest first."""


class FairQueue(Generic[Item]):
    """Rows that wait, by owner. Not locked: the user of it locks."""

    def __init__(self) -> None:
        self._owners: dict[str, _Owner[Item]] = {}
        self._virtual = 0.0
        self._arrivals = 0
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, owner: str, cost: float, item: Item) -> None:
        """Put a row at the end of its owner's own line. `cost` is positive."""
        if cost <= 0:
            raise ValueError(f"cost must be positive, got {cost}")
        theirs = self._owners.setdefault(owner, _Owner(self._virtual))
        if not theirs.waiting:
            theirs.start = max(theirs.start, self._virtual)
        theirs.waiting.append((self._arrivals, cost, item))
        self._arrivals += 1
        self._length += 1

    def pop(self, has_room: Callable[[Item], bool]) -> Item | None:
        """The next row in fair order of those at the head of a line for which there is room."""
        in_order = sorted(
            (owner.start, owner.waiting[0][0], name)
            for name, owner in self._owners.items()
            if owner.waiting
        )
        for start, _, name in in_order:
            owner = self._owners[name]
            _, cost, item = owner.waiting[0]
            if not has_room(item):
                continue
            owner.waiting.popleft()
            self._length -= 1
            self._virtual = max(self._virtual, start)
            owner.start = start + cost
            self._forget_the_served()
            return item
        return None

    def take_out(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Remove rows that shall not be served; their owners pay nothing for them."""
        removed: list[Item] = []
        for owner in self._owners.values():
            kept = deque(entry for entry in owner.waiting if not unwanted(entry[2]))
            if len(kept) < len(owner.waiting):
                removed += [item for _, _, item in owner.waiting if unwanted(item)]
                owner.waiting = kept
        self._length -= len(removed)
        self._forget_the_served()
        return removed

    def _forget_the_served(self) -> None:
        """An owner who waits for nothing and owes nothing is as good as new."""
        for name in [
            name
            for name, owner in self._owners.items()
            if not owner.waiting and owner.start <= self._virtual
        ]:
            del self._owners[name]
