"""How places and turns are shared between owners who do not know of each other, and what it takes.

A job's work is in seconds of a model that does nothing else.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

Owner = tuple[str, str | None]
"""A tenant and one of its people; None for jobs of nobody and of several."""


def share(limit: int, taken: int, cap: int) -> int:
    """How many of `limit` places one owner may hold while `taken` of them are held.

    As many as are still free, `cap` at most, and always one: a single greedy owner gets half of all
    places, two get a third each, n get 1/(n + 1) each, so that a few never leave nothing to others.
    """
    return min(cap, max(1, limit - taken))


@dataclass(frozen=True)
class Queue:
    """How many jobs of a kind wait: all, a tenant's, a person's; and the turn that one more gets.

    Start-time fair queueing with jobs of equal cost: whoever has nothing in the queue comes in at
    the turn that is being served, and each further job one turn later. So people (and a tenant's
    jobs for nobody or for a blend, as one more) go round in turn.
    """

    waiting: int
    of_tenant: int
    of_user: int
    turn: int


@dataclass
class Crowd:
    """Who waits for jobs of one kind, as some owners see it who come to it now.

    `running` is the latest turn of what runs, `coming` the earliest of what waits, of any kind.
    `last` is the latest turn that an owner has, among what waits and runs.
    """

    running: int | None = None
    coming: int | None = None
    waiting: int = 0
    of_tenant: Counter[str] = field(default_factory=Counter)
    of_owner: Counter[Owner] = field(default_factory=Counter)
    last: dict[Owner, int] = field(default_factory=dict)

    def queue(self, owner: Owner) -> Queue:
        """The queue as this owner comes to it."""
        turn = present_turn(self.running, self.coming)
        last = self.last.get(owner)
        if last is not None:
            turn = max(turn, last + 1)
        mine = self.of_owner[owner] if owner[1] is not None else 0
        return Queue(self.waiting, self.of_tenant[owner[0]], mine, turn)

    def join(self, owner: Owner, turn: int) -> None:
        self.waiting += 1
        self.of_tenant[owner[0]] += 1
        self.of_owner[owner] += 1
        self.last[owner] = max(turn, self.last.get(owner, turn))
        self.coming = turn if self.coming is None else min(self.coming, turn)


def present_turn(running: int | None, coming: int | None) -> int:
    if running is None or coming is None:
        return running or coming or 0
    return max(running, coming - 1)  # what runs may be of an old turn, begun once more


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
