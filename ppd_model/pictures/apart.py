"""Reads the pictures that strangers send in a process of its own, with limits on all it may take.

A picture can be made to use a decoder's faults, or minutes and gigabytes. What goes wrong here ends
this process and the request that brought the picture; it has no secret and writes no file.

Both sides of the pipe: pictures go in, each with its length before it; for each a verdict comes
out, then a length, then a PNG or a message.
"""

from __future__ import annotations

import io
import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import AvifImagePlugin

from ppd_model.pictures.formats import openers
from ppd_model.pictures.reading import Limits, PictureError, opened
from ppd_model.pictures.writing import encoded

_READ, _REFUSED = b"+", b"-"
_LENGTH_BYTES = 8
_INHERITED = ("PATH", "HOME", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Allowance:
    """What the pictures of one request may take together."""

    pixels: int
    seconds: float
    memory_bytes: int


def read_apart(
    pictures: Sequence[bytes], limits: Limits, allowance: Allowance
) -> list[bytes | PictureError]:
    """Of each picture a plain PNG, or why it is not read."""
    if not pictures:
        return []
    given = json.dumps({"limits": asdict(limits), "allowance": asdict(allowance)})
    try:
        done = subprocess.run(  # noqa: S603 - ourselves
            [sys.executable, "-W", "ignore", "-m", __name__, given],
            input=b"".join(map(_with_length, pictures)),
            stdout=subprocess.PIPE,
            env=_environment(),
            timeout=allowance.seconds,
            check=False,
        )
        output, why = done.stdout, "it, or one beside it, could not be read within bounds"
    except subprocess.TimeoutExpired as late:
        output = late.stdout or b""
        why = f"the pictures of one request may take {allowance.seconds:.0f} seconds to read"
    found = list(_outcomes(io.BytesIO(output)))
    return [*found, *(PictureError(why) for _ in pictures[len(found) :])]


def main(given: str, pictures: BinaryIO, outcomes: BinaryIO) -> None:
    """The other side: read until there are no more, within the limits."""
    settings = json.loads(given)
    limits, allowance = Limits(**settings["limits"]), Allowance(**settings["allowance"])
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    openers()  # what they need is loaded before memory is short
    _confine(allowance)
    left = allowance.pixels
    while (data := _read_one(pictures)) is not None:
        try:
            picture = opened(data, limits)
            left -= picture.size[0] * picture.size[1]
            if left < 0:
                most = f"at most {allowance.pixels} pixels are read for one request"
                raise PictureError(f"is too much with those before it: {most}")
            outcome = _READ + _with_length(encoded(picture.read()))
        except PictureError as error:
            outcome = _REFUSED + _with_length(str(error).encode())
        outcomes.write(outcome)
        outcomes.flush()


def _confine(allowance: Allowance) -> None:
    seconds = math.ceil(allowance.seconds)
    for limit, most in (
        (resource.RLIMIT_AS, allowance.memory_bytes),
        (resource.RLIMIT_CPU, seconds),
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


def _outcomes(pipe: BinaryIO) -> Iterator[bytes | PictureError]:
    while verdict := pipe.read(1):
        data = _read_one(pipe)
        if data is None:
            return
        yield data if verdict == _READ else PictureError(data.decode())


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin.buffer, sys.stdout.buffer)
