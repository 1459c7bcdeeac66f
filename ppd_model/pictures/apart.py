"""Reads the pictures that strangers send in a process of its own, with limits on all it may take.

A picture can be made to use a decoder's faults, or minutes and gigabytes. What goes wrong here ends
this process and the request that brought the picture; it has no secret and writes no file.

One process waits with everything loaded (`Readers`), and is forked for each request; it sees no
picture itself. Over a socket go the limits and the pictures; back come their sizes, by their
headers, and then, of each that is asked for, a PNG or why it is not read.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Self

from PIL import AvifImagePlugin

from ppd_model.pictures.formats import openers
from ppd_model.pictures.reading import Limits, Opened, PictureError, opened
from ppd_model.pictures.writing import encoded

LARGE_PIXELS = 2_000_000
"""From here on a picture is read at a lower priority than all else."""
_LATER = 3
_READ, _REFUSED = b"+", b"-"
_LENGTH_BYTES = 8
_INHERITED = ("PATH", "HOME", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Allowance:
    """What the pictures of one request may take together. `seconds` are of a processor's work."""

    pixels: int
    seconds: float
    memory_bytes: int


class Readers:
    """The process that is forked for each request; begun with the first one, and when it is lost.

    May be used from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def begin(self, pictures: Sequence[bytes], limits: Limits, allowance: Allowance) -> Reading:
        """Hand the pictures of one request over; what comes back is to be closed."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._hand_over(theirs)
            return Reading(ours, pictures, limits, allowance)
        except BaseException:
            ours.close()
            raise

    def close(self) -> None:
        """End the waiting process; what was forked of it goes on."""
        with self._lock:
            self._end()

    def _hand_over(self, connection: socket.socket) -> None:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            try:
                self._send(connection)
            except OSError:
                self._start()
                self._send(connection)

    def _send(self, connection: socket.socket) -> None:
        assert self._control is not None
        socket.send_fds(self._control, [b"."], [connection.fileno()])

    def _start(self) -> None:
        self._end()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-W", "ignore", "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env=_environment(),
                pass_fds=(theirs.fileno(),),
            )

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._control = None


class Reading:
    """The pictures of one request, in a process of their own until this is closed."""

    sizes: list[int | PictureError]
    """Of each picture its pixels, or why it is not read."""

    def __init__(
        self,
        connection: socket.socket,
        pictures: Sequence[bytes],
        limits: Limits,
        allowance: Allowance,
    ) -> None:
        self._connection = connection
        self._allowance = allowance
        self._results = connection.makefile("rb")
        given = {"limits": asdict(limits), "allowance": asdict(allowance)}
        with contextlib.suppress(OSError):  # who has ended says nothing in answer either
            connection.sendall(_with_length(json.dumps(given).encode()))
            connection.sendall(len(pictures).to_bytes(_LENGTH_BYTES, "big"))
            for data in pictures:
                connection.sendall(_with_length(data))
        found = [self._outcome() for _ in pictures]
        self.sizes = [int(one) if isinstance(one, bytes) else one for one in found]

    def read(self, index: int) -> bytes | PictureError:
        """A plain PNG of one of the pictures, or why it is not read."""
        with contextlib.suppress(OSError):
            self._connection.sendall(index.to_bytes(_LENGTH_BYTES, "big"))
        return self._outcome()

    def _outcome(self) -> bytes | PictureError:
        verdict, data = b"", None
        with contextlib.suppress(OSError):
            verdict = self._results.read(1)
            data = _read_one(self._results)
        if data is None:
            return PictureError(self._why_it_ended())
        return data if verdict == _READ else PictureError(data.decode())

    def _why_it_ended(self) -> str:
        seconds, memory_MiB = self._allowance.seconds, self._allowance.memory_bytes >> 20
        bounds = f"{seconds:g} seconds of work and {memory_MiB} MiB of memory"
        return f"it, or one beside it, could not be read within {bounds}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process; safe to do twice."""
        self._results.close()
        self._connection.close()


def read_apart(
    readers: Readers, pictures: Sequence[bytes], limits: Limits, allowance: Allowance
) -> list[bytes | PictureError]:
    """Of each picture a plain PNG, or why it is not read, one after the other."""
    with readers.begin(pictures, limits, allowance) as reading:
        return [
            size if isinstance(size, PictureError) else reading.read(i)
            for i, size in enumerate(reading.sizes)
        ]


def wait(control: socket.socket) -> None:
    """The other side: fork for each connection that is handed over, until there are no more."""
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    openers()  # what they need is loaded before memory is short
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, which is for the service
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        said, connections, _, _ = socket.recv_fds(control, 1, 1)
        if not said:
            return
        if os.fork() == 0:
            control.close()
            try:
                with socket.socket(fileno=connections[0]) as connection:
                    _serve(connection)
            finally:
                os._exit(0)
        os.close(connections[0])


def _serve(connection: socket.socket) -> None:
    """Of one request: all sizes, then each picture that is asked for."""
    asked = connection.makefile("rb")
    settings = json.loads(_read_one(asked) or b"")
    limits, allowance = Limits(**settings["limits"]), Allowance(**settings["allowance"])
    _confine(allowance)
    count = int.from_bytes(asked.read(_LENGTH_BYTES), "big")
    sent = [_read_one(asked) or b"" for _ in range(count)]
    pictures: list[Opened | None] = []
    left = allowance.pixels
    for data in sent:
        try:
            picture = opened(data, limits)
            left -= picture.size[0] * picture.size[1]
            if left < 0:
                most = f"at most {allowance.pixels} pixels are read for one request"
                raise PictureError(f"is too much with those before it: {most}")
        except PictureError as error:
            pictures.append(None)
            connection.sendall(_REFUSED + _with_length(str(error).encode()))
        else:
            pictures.append(picture)
            pixels = str(picture.size[0] * picture.size[1]).encode()
            connection.sendall(_READ + _with_length(pixels))
    del sent
    while index := asked.read(_LENGTH_BYTES):
        at = int.from_bytes(index, "big")
        picture_or_none, pictures[at] = pictures[at], None
        assert picture_or_none is not None, "each is asked for once, and only what can be read"
        connection.sendall(_read(picture_or_none))


def _read(picture: Opened) -> bytes:
    if picture.size[0] * picture.size[1] > LARGE_PIXELS:
        os.nice(_LATER)
    try:
        return _READ + _with_length(encoded(picture.read()))
    except PictureError as error:
        return _REFUSED + _with_length(str(error).encode())


def _confine(allowance: Allowance) -> None:
    """What goes beyond ends this process; where it works is not asked: no decoder can be told."""
    signal.setitimer(signal.ITIMER_PROF, allowance.seconds)
    for limit, most in (
        (resource.RLIMIT_AS, allowance.memory_bytes),
        (resource.RLIMIT_CPU, math.ceil(allowance.seconds) + 1),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))


def _environment() -> dict[str, str]:
    """No secret, one thread, and our own code where this process has it from."""
    here = str(Path(__file__).parents[2])
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    alone = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    return {**inherited, **alone, "PYTHONPATH": path}


def _with_length(data: bytes) -> bytes:
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def _read_one(pipe: BinaryIO) -> bytes | None:
    """The next piece; None when there is none, or not all of it."""
    length = pipe.read(_LENGTH_BYTES)
    if len(length) < _LENGTH_BYTES:
        return None
    data = pipe.read(int.from_bytes(length, "big"))
    return data if len(data) == int.from_bytes(length, "big") else None


if __name__ == "__main__":
    wait(socket.socket(fileno=int(sys.argv[1])))
