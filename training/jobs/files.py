"""Files that appear whole: a job that is stopped leaves the old one, or none, never a part."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` once all is written."""
    unfinished = path.with_name(path.name + ".tmp")
    yield unfinished
    unfinished.replace(path)


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """A json file, its folder made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(value, indent=indent) + "\n")
