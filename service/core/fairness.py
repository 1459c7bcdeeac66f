"""How places are shared between owners who do not know of each other, and what jobs take.

A job's work is in seconds of a model that does nothing else.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from service.core.auth import BROWSER_TENANT

Owner = tuple[str, str | None, str | None]
"""A tenant, the lane of a browser's address, and one of the tenant's people; None for jobs of
nobody and of several."""

Spender = tuple[Literal["user", "tenant", "sessions", "address"], str]
"""Whose seconds of the models are counted."""


def spenders(tenant: str, lane: str | None, user_pk: str | None) -> list[Spender]:
    """All on whose account the models work: people are free to make, so it is not theirs alone."""
    above: list[Spender] = [("tenant", tenant)]
    if tenant == BROWSER_TENANT:
        above = [("sessions", "all"), *([("address", lane)] if lane is not None else ())]
    return [*([("user", user_pk)] if user_pk is not None else ()), *above]


def share(limit: int, taken: int, cap: int) -> int:
    """How many of `limit` places one owner may hold while `taken` of them are held.

    As many as are still free, `cap` at most, and always one: a single greedy owner gets half of all
    places, two get a third each, n get 1/(n + 1) each, so that a few never leave nothing to others.
    """
    return min(cap, max(1, limit - taken))


@dataclass(frozen=True)
class Queue:
    """How many jobs of a kind wait: all, a tenant's, an address's, a person's."""

    waiting: int
    of_tenant: int
    of_lane: int
    of_user: int


@dataclass
class Crowd:
    """Who waits for jobs of one kind, as some owners see it who come to it now."""

    waiting: int = 0
    of_tenant: Counter[str] = field(default_factory=Counter)
    of_lane: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    of_user: Counter[str] = field(default_factory=Counter)

    def queue(self, owner: Owner) -> Queue:
        """The queue as this owner comes to it."""
        tenant, lane, user_pk = owner
        mine = self.of_user[user_pk] if user_pk is not None else 0
        return Queue(self.waiting, self.of_tenant[tenant], self.of_lane[tenant, lane], mine)

    def join(self, owner: Owner, count: int = 1) -> None:
        tenant, lane, user_pk = owner
        self.waiting += count
        self.of_tenant[tenant] += count
        self.of_lane[tenant, lane] += count
        if user_pk is not None:
            self.of_user[user_pk] += count


@dataclass(frozen=True)
class Working:
    """A model that takes jobs: so many at once, which share it; how fast it is, once measured.

    `step_s`: a step of a picture, decoding included. `reading_s`: a reading of four answers.
    """

    kinds: Collection[str]
    jobs_at_once: int
    step_s: float | None = None
    reading_s: float | None = None


def expected_waits_s(
    waiting: Sequence[float | None],
    running: Sequence[float | None],
    models: int,
    at_once: int,
) -> list[float | None]:
    """After how many seconds each of these jobs is begun, in the order in which they wait.

    Given are the work of each and what is left of what runs; `models` of the same speed work on
    `at_once` jobs together. None wherever the work of something before it is not known.
    """
    left, now_s, waits_s = list(running), 0.0, list[float | None]()
    for work in waiting:
        while len(left) >= at_once:
            known = [one for one in left if one is not None]
            if len(known) < len(left):
                return waits_s + [None] * (len(waiting) - len(waits_s))
            least = min(known)
            now_s += least * max(1.0, len(left) / models)
            left = [one - least for one in known if one > least]
        waits_s.append(now_s)
        left.append(work)
    return waits_s
