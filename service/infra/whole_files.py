"""Files that are there whole or not at all, also after a loss of power."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PART = ".part-"
"""How the name begins of what is not whole yet, or never became so."""
_TRIES = 10


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Written beside, flushed, renamed, in place of what was there; for the owner alone to read.

    Makes the folder, which others may be taking away meanwhile. Raises OSError.
    """
    handle, name = _part(path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    with contextlib.suppress(FileNotFoundError):  # a folder that its last file was taken out of
        _flush_folder(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """`whole_file` of bytes that are there already."""
    with whole_file(path) as file:
        file.write(data)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _part(folder: Path) -> tuple[int, str]:
    for _ in range(_TRIES):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            return tempfile.mkstemp(dir=folder, prefix=PART)
    raise FileNotFoundError(f"{folder} goes away as fast as it is made")
