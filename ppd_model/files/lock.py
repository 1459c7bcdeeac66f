"""What ``ppd models pull`` fetched: of each repository, the commit and the sha256 of every file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ppd_model.files.artifact import ArtifactError

LOCK_FILE = "ppd-models.json"
FORMAT = "ppd-models-1"


@dataclass(frozen=True)
class LockedFile:
    """Hex sha256 and size of a file as it was fetched."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class LockedRepository:
    """The revision that was asked for, the commit that it was then, and the files by path."""

    revision: str
    commit: str
    files: Mapping[str, LockedFile]


@dataclass(frozen=True)
class Lock:
    """The fetched repositories, by hub id."""

    repositories: Mapping[str, LockedRepository] = field(default_factory=dict)


def read_lock(folder: Path) -> Lock:
    """The lock of a folder; an empty one where there is none.

    Raises ArtifactError for a file that is no lock.
    """
    path = folder / LOCK_FILE
    if not path.is_file():
        return Lock()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format is {content['format']!r}, expected {FORMAT!r}")
        return Lock(
            {
                str(hub_id): LockedRepository(
                    str(entry["revision"]),
                    str(entry["commit"]),
                    {str(name): LockedFile(**file) for name, file in entry["files"].items()},
                )
                for hub_id, entry in content["repositories"].items()
            }
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: not a lock: {error!r}") from error


def write_lock(folder: Path, lock: Lock) -> None:
    """Put the lock in place in one step."""
    text = json.dumps({"format": FORMAT, **asdict(lock)}, indent=2, sort_keys=True)
    unfinished = folder / f"{LOCK_FILE}.unfinished"
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, folder / LOCK_FILE)
