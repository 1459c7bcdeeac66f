"""Files that appear whole: a job that is stopped leaves the old one, or none, never a part."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FULL = ("No space left", "File too large", "PytorchStreamWriter failed", "inline_container")
"""What safetensors and torch say of a full disk and of a file beyond a limit."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` once all is written.

    What is not finished is taken away. Raises OSError where the disk is full, whoever wrote.
    """
    unfinished = path.with_name(path.name + ".tmp")
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if _is_of_the_disk(error):
            raise OSError(f"{path} could not be written: {error}") from error
        raise


def _is_of_the_disk(error: BaseException) -> bool:
    """Writers of tensors raise errors of their own kinds for a disk that is full."""
    said = str(error)
    return not isinstance(error, OSError) and any(words in said for words in FULL)


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """A json file, its folder made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(value, indent=indent) + "\n")


def read_lines(path: Path) -> list[Any]:
    """The values of a file of json lines, none where there is no file. A last line that was not
    written to its end is cut off the file, so that more can be added."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        with replacing(path) as unfinished:
            unfinished.write_text(whole, encoding="utf-8")
    return [json.loads(line) for line in whole.split("\n")[:-1]]
