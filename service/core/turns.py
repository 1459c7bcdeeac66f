"""Whose turn it is: tenants go round, in a tenant the addresses of browsers, in those people.

Start-time fair queueing at each level, by work: who is served moves on by what that takes, and the
one with the earliest turn is next. Who comes anew begins at the turn that is being served, so one
picture comes before the second of somebody who has hundreds, and nobody saves up turns while away.
Who has many people, keys or addresses below them has no more turns for it.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeVar

from service.core.auth import BROWSER_TENANT

Path = tuple[str, ...]
"""A tenant, an address (of a key's people the empty one), a person; or the beginning of one."""

PART_OF_SESSIONS = 0.75
"""Of everything, all sessions together hold no more: keys must find room beside them."""

Rank = tuple[float, datetime | float, str]
"""Among jobs of one person, and where turns are equal: kind of work, arrival, id; least first."""


class Waits(Protocol):
    """Something that waits for its turn."""

    @property
    def path(self) -> Path: ...
    @property
    def work(self) -> float: ...
    @property
    def rank(self) -> Rank: ...


W = TypeVar("W", bound=Waits)


class Turn(NamedTuple):
    """Where somebody's next job begins among those beside them, and what is served below them."""

    next: float = 0.0
    present: float = 0.0


def path_of(tenant: str, lane: str | None, person: str | None) -> Path:
    return tenant, lane or "", person or ""


@dataclass
class Turns:
    """The turns of all who were served lately; whoever is missing begins at the present one."""

    of: dict[Path, Turn] = field(default_factory=dict)

    def begins(self, path: Path) -> float:
        """Where the next job of this node begins among those beside it."""
        return max(self.of.get(path, Turn()).next, self.of.get(path[:-1], Turn()).present)

    def serve(self, path: Path, work: float) -> dict[Path, Turn]:
        """Move everybody on who is above this work; gives the turns that are others now."""
        for depth in range(1, len(path) + 1):
            node, above = path[:depth], path[: depth - 1]
            begins = self.begins(node)
            upper = self.of.get(above, Turn())
            self.of[above] = Turn(upper.next, max(upper.present, begins))
            self.of[node] = Turn(begins + work, self.of.get(node, Turn()).present)
        return {path[:depth]: self.of[path[:depth]] for depth in range(len(path) + 1)}


class Line(Generic[W]):
    """Those who wait, in the order in which they are served if nobody else comes."""

    def __init__(self, turns: Turns, waiting: Iterable[W]) -> None:
        self._turns = Turns(dict(turns.of))
        self._all = _Node[W]()
        for job in sorted(waiting, key=lambda job: job.rank):
            node = self._all
            for name in job.path:
                node = node.below.setdefault(name, _Node())
            node.jobs.append(job)
        self._all.look_below()

    def __iter__(self) -> Iterator[W]:
        while self._all.first is not None:
            yield self._next()

    def _next(self) -> W:
        node, path, passed = self._all, Path(), [self._all]
        while node.below:
            name = min(node.below, key=partial(self._place, node, path))
            node, path = node.below[name], (*path, name)
            passed.append(node)
        job = node.jobs.popleft()
        for one in reversed(passed):
            one.look()
        self._turns.serve(job.path, job.work)
        return job

    def _place(self, node: "_Node[W]", path: Path, name: str) -> tuple[float, bool, Rank]:
        """Of somebody among those beside them; of equal turns keys come before sessions."""
        first = node.below[name].first
        assert first is not None, "who has nothing left is not there"
        return self._turns.begins((*path, name)), (*path, name)[0] == BROWSER_TENANT, first


class _Node(Generic[W]):
    """Those at or below one node who wait, and the first rank among them."""

    def __init__(self) -> None:
        self.below: dict[str, _Node[W]] = {}
        self.jobs: deque[W] = deque()
        self.first: Rank | None = None

    def look_below(self) -> None:
        for node in self.below.values():
            node.look_below()
        self.look()

    def look(self) -> None:
        """Drop who has nothing left, and find the first of the others."""
        self.below = {name: node for name, node in self.below.items() if node.first is not None}
        ranks = [node.first for node in self.below.values() if node.first is not None]
        if self.jobs:
            ranks.append(self.jobs[0].rank)
        self.first = min(ranks, default=None)
