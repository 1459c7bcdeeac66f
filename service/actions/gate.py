"""One gate for what is dear: bodies that are held, pictures that are read.

What is bounded in all is shared by tenant, then by address (of sessions), then by person: each may
hold as much as is still free of what is there for those beside them, so the first who come leave
room for others. Who finds none is refused before anything of theirs is read.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from ppd_model.pictures.apart import LARGE_PIXELS
from service.core.auth import BROWSER_TENANT, Caller
from service.core.errors import ServiceError
from service.core.turns import PART_OF_SESSIONS, Line, Path, Rank, Turns, path_of

_RETRY_AFTER = {"Retry-After": "2"}
_WHOLE_WITHIN_S, _GRACE_S = 30.0, 2.0
"""A body that comes more slowly than that holds no more than what has come."""
_READ_AT_ONCE = 2
_LARGE_AT_ONCE = 1


def place_of(caller: Caller, person: str | None) -> Path:
    """Whose place it is: of a session its own, of a key the person's whom it names."""
    return path_of(caller.tenant, caller.lane, caller.own_user_id or person)


class Shares:
    """So much of something in all, of which everybody holds a share."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: Counter[Path] = Counter()

    @property
    def held(self) -> int:
        return self._held[()]

    def take(self, path: Path, amount: int) -> None:
        """Raise 503 when there is no room for so much, 429 when it is more than their share."""
        of_sessions = path[0] == BROWSER_TENANT
        limit = int(self._limit * PART_OF_SESSIONS) if of_sessions else self._limit
        taken = self._held[path[:1]] if of_sessions else self._held[()]
        if self._held[()] + amount > self._limit or taken + amount > limit:
            raise ServiceError(503, "busy", headers=_RETRY_AFTER)
        free = self._limit - self._held[()]
        for depth, name in enumerate(path, 1):
            if not name and depth < len(path):  # the people of a key have no addresses
                continue
            mine = self._held[path[:depth]]
            if mine and mine + amount > free:
                raise ServiceError(429, "too_much_at_once", headers=_RETRY_AFTER)
            free = (mine + free) // 2 - mine
        self._add(path, amount)

    def give_back(self, path: Path, amount: int) -> None:
        self._add(path, -amount)

    def _add(self, path: Path, amount: int) -> None:
        for depth in range(len(path) + 1):
            self._held[path[:depth]] += amount
            if not self._held[path[:depth]]:
                del self._held[path[:depth]]


@dataclass(eq=False)
class _Waiting:
    path: Path
    work: float
    rank: Rank
    may: "asyncio.Future[None]"


@dataclass
class HeldBytes:
    """What one request holds of the bodies' bytes."""

    shares: Shares
    path: Path
    bytes: int = 0
    _expected: int = 0
    """What room was taken for before it came; 0 where room is taken as it comes."""
    _came: int = 0
    _began_s: float = 0.0
    _timer: asyncio.TimerHandle | None = None

    def expect(self, size: int) -> None:
        """Take room for a whole body, and keep it as long as that comes soon enough.

        Raises 503 or 429 where there is none. A body that keeps others waiting loses the room for
        what has not come: from then on it is taken as it comes.
        """
        self.take(size)
        self._expected, self._began_s = size, asyncio.get_running_loop().time()
        self._look()

    def came(self, size: int) -> None:
        """Some of the body is here; raises 503 or 429 where there is no room for it."""
        self._came += size
        if size and not self._expected:
            self.take(size)

    def take(self, more: int) -> None:
        """Raise 503 or 429 when there is no room for more. What is held already counts as new."""
        held, self.bytes = self.bytes, 0
        self.shares.give_back(self.path, held)
        self.shares.take(self.path, held + more)
        self.bytes = held + more

    def give_back(self) -> None:
        """All of it."""
        if self._timer is not None:
            self._timer.cancel()
        self.shares.give_back(self.path, self.bytes)
        self.bytes = 0

    def _look(self) -> None:
        if self._came >= self._expected:
            return
        due_s = self._began_s + _GRACE_S + _WHOLE_WITHIN_S * self._came / self._expected
        loop = asyncio.get_running_loop()
        if loop.time() < due_s:
            self._timer = loop.call_at(due_s, self._look)
            return
        self.shares.give_back(self.path, self.bytes - self._came)
        self.bytes, self._expected = self._came, 0


@dataclass
class Gate:
    """Bodies by their bytes, requests with pictures by their number, pictures by their pixels."""

    body_bytes: int
    requests: int
    _bodies: Shares = field(init=False)
    _requests: Shares = field(init=False)
    _turns: Turns = field(default_factory=Turns)
    _waiting: list[_Waiting] = field(default_factory=list)
    _reading: Counter[bool] = field(default_factory=Counter)
    """How many are read now, by whether they are large."""
    _arrivals: int = 0

    def __post_init__(self) -> None:
        self._bodies, self._requests = Shares(self.body_bytes), Shares(self.requests)

    @contextmanager
    def holding_bytes(self, path: Path) -> Iterator[HeldBytes]:
        """Until the end of the block a request holds what it takes."""
        held = HeldBytes(self._bodies, path)
        try:
            yield held
        finally:
            held.give_back()

    @contextmanager
    def request_with_pictures(self, path: Path) -> Iterator[None]:
        """Raise 503 or 429 when as many as may are there already."""
        self._requests.take(path, 1)
        try:
            yield
        finally:
            self._requests.give_back(path, 1)

    @asynccontextmanager
    async def turn(self, path: Path, pixels: int) -> AsyncIterator[None]:
        """Wait until a picture may be read. Small ones never wait for large ones to end."""
        self._arrivals += 1
        may = asyncio.get_running_loop().create_future()
        mine = _Waiting(path, float(pixels), (0, float(self._arrivals), ""), may)
        self._waiting.append(mine)
        self._let_in()
        try:
            await may
        except asyncio.CancelledError:
            if mine in self._waiting:
                self._waiting.remove(mine)
            else:
                self._end(mine)
            raise
        try:
            yield
        finally:
            self._end(mine)

    def _end(self, mine: _Waiting) -> None:
        self._reading[_is_large(mine)] -= 1
        self._let_in()

    def _let_in(self) -> None:
        for one in list(Line(self._turns, self._waiting)):
            if one.may.done():  # given up: it takes itself out
                continue
            large = _is_large(one)
            if self._reading.total() >= _READ_AT_ONCE:
                return
            if not large or self._reading[True] < _LARGE_AT_ONCE:
                self._waiting.remove(one)
                self._reading[large] += 1
                self._turns.serve(one.path, one.work)
                one.may.set_result(None)
        if not self._waiting and not self._reading.total():
            self._turns = Turns()  # nobody is left to go before


def _is_large(one: _Waiting) -> bool:
    return one.work > LARGE_PIXELS
