"""Connections to the server: how many there are, from where, and how long each may take.

A proxy in front does this too; the embedded default has none.
"""

import asyncio
import ipaddress
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

log = logging.getLogger("ppd.http")

Phase = Literal["idle", "headers", "body", "answer"]

_BARE = re.compile(rb"(?<!\r)\n")
_STALLED_S = 2.0
"""A body of which nothing has come for so long may make room for another connection."""
_TOLD_EVERY_S = 60.0
_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)
_TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)  # fmt: skip
_BARE_LINE_END = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)  # fmt: skip


@dataclass(frozen=True)
class Bounds:
    """How many connections there may be, and how many seconds each part of a request may take."""

    connections: int
    of_address: int
    headers_s: float
    """From the connection, or the first byte of a further request, to the end of its headers."""
    body_s: float
    reading_s: float
    """For how long a client may take nothing of its answer."""
    proxies: tuple[str, ...] = ()
    """Addresses and networks that stand for many clients: the bound of an address is not theirs."""


@dataclass
class _Seen:
    """What a connection has been doing, and since when."""

    doing: Any
    since_s: float


@dataclass
class Connections:
    """All connections of a server. Whoever comes makes the one go that has been idle longest."""

    bounds: Bounds
    clock: Callable[[], float]
    _of: dict[str, dict["Connection", None]] = field(default_factory=dict)
    """By address, oldest first."""
    _seen: dict["Connection", _Seen] = field(default_factory=dict)
    _happened: Counter[str] = field(default_factory=Counter)
    _told_s: float = float("-inf")

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def enter(self, connection: "Connection", address: str) -> bool:
        """Count a connection; false when there is no room for it, and nobody idle to make some."""
        mine = self._of.get(address, {})
        if len(mine) >= self.bounds.of_address and not self._is_proxy(address):
            if not self._let_one_go(mine):
                self._happened["refused"] += 1
                return False
        elif len(self) >= self.bounds.connections:
            by_size = sorted(self._of.values(), key=len, reverse=True)
            if not any(self._let_one_go(theirs) for theirs in by_size):
                self._happened["refused"] += 1
                return False
        self._of.setdefault(address, {})[connection] = None
        return True

    def leave(self, connection: "Connection", address: str) -> None:
        theirs = self._of.get(address, {})
        if theirs.pop(connection, False) is None and not theirs:
            del self._of[address]
        self._seen.pop(connection, None)

    def look(self) -> None:
        """End what takes too long. To be called every second or so."""
        now_s = self.clock()
        for connection in list(self._all()):
            doing = connection.doing()
            seen = self._seen.get(connection)
            if seen is None or seen.doing != doing:
                self._seen[connection] = _Seen(doing, now_s)
            elif now_s - seen.since_s > self._patience_s(connection):
                self._happened["too slow"] += 1
                connection.end(_TOO_SLOW)
        self._tell(now_s)

    def _patience_s(self, connection: "Connection") -> float:
        bounds = self.bounds
        if connection.transport.is_closing() or connection.is_stuck():
            return bounds.reading_s
        phase = connection.phase()
        if phase == "body":
            return bounds.body_s
        never_asked = connection.cycle is None
        return bounds.headers_s if phase == "headers" or never_asked else float("inf")

    def _let_one_go(self, some: dict["Connection", None]) -> bool:
        """End the oldest of these that nobody works for."""
        now_s = self.clock()
        for connection in some:
            if connection.transport.is_closing():
                continue
            phase = connection.phase()
            stalled = phase == "body" and now_s - connection.heard_s > _STALLED_S
            if phase in ("idle", "headers") or stalled:
                self._happened["closed for others"] += 1
                connection.end(b"")
                return True
        return False

    def _all(self) -> Iterator["Connection"]:
        for theirs in self._of.values():
            yield from theirs

    def _is_proxy(self, address: str) -> bool:
        return _among(address, self.bounds.proxies)

    def _tell(self, now_s: float) -> None:
        """One line for all of it, once a minute."""
        if self._happened and now_s - self._told_s >= _TOLD_EVERY_S:
            counts = ", ".join(f"{count} {what}" for what, count in self._happened.items())
            log.warning(
                "connections: %s; %d are open, of %d from %d for an address",
                counts,
                len(self),
                self.bounds.connections,
                self.bounds.of_address,
            )
            self._happened.clear()
            self._told_s = now_s


class Connection(H11Protocol):
    """One connection, which `Connections` counts and may end."""

    def __init__(self, connections: Connections, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections = connections
        self._address = ""
        self._entered = False
        self._last = b""
        """The end of what was read before: four bytes may end the headers."""
        self.heard_s = connections.clock()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if isinstance(peer, tuple) else ""
        self.transport = transport
        self._entered = self._connections.enter(self, self._address)
        if self._entered:
            super().connection_made(transport)
        else:
            self.end(_TOO_MANY)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._entered:
            self._connections.leave(self, self._address)
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless a line of the headers ends without CR: others would divide them anew."""
        self.heard_s = self._connections.clock()
        if self.conn.their_state is h11.IDLE and _ends_a_line_barely(self._last, data):
            self.end(_BARE_LINE_END)
            return
        self._last = (self._last + data)[-3:] if len(data) < 3 else data[-3:]
        super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """What cannot be read is 400 where no answer has begun, and the last in any case.

        A request whose body it was of is answered no more: that would be a second answer.
        """
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def phase(self) -> Phase:
        """What it is about at present."""
        theirs = self.conn.their_state
        if theirs is h11.SEND_BODY:
            return "body"
        if self.cycle is not None and not self.cycle.response_complete:
            return "answer"
        return "headers" if self.conn.trailing_data[0] else "idle"

    def doing(self) -> Any:
        """Something that is equal for as long as it gets no further."""
        return self.phase(), self.cycle, self.is_stuck() and self._unsent()

    def is_stuck(self) -> bool:
        """Whether the client does not take what it is sent."""
        return self.flow.write_paused or (self.transport.is_closing() and self._unsent() > 0)

    def end(self, last_words: bytes) -> None:
        """Hang up; the words only where no answer has begun."""
        if self.transport.is_closing() or self._unsent():
            self.transport.abort()
            return
        cycle = self.cycle
        if last_words and (cycle is None or cycle.response_complete or not cycle.response_started):
            self.transport.write(last_words)
        self.transport.close()

    def _unsent(self) -> int:
        return self.transport.get_write_buffer_size()


def _ends_a_line_barely(before: bytes, data: bytes) -> bool:
    """Whether a line of the headers that these bytes are of ends in LF alone."""
    read = before + data
    end = read.find(b"\r\n\r\n")
    return _BARE.search(read, len(before), len(read) if end < 0 else end) is not None


@lru_cache(maxsize=1024)
def _among(address: str, networks: tuple[str, ...]) -> bool:
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(known in ipaddress.ip_network(network, strict=False) for network in networks)
