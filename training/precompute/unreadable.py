"""Pictures that cannot be read: named, counted, left out; beyond a share that is set they end the
job.

Dimension letters: N pictures, 2: row of the files, and which of its pictures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.pair_files import PICTURES
from training.data.splits import PersonPairs
from training.precompute.plan import Plan

UNREADABLE = "unreadable-"
"""Lists of such pictures, one beside each shard of latents."""


def note(plan: Plan, row: int, side: int, reason: object) -> dict[str, Any]:
    """One picture's entry in a list: of whose pair, in which row of which file."""
    preferences = plan.preferences
    path, within = plan.files.locate(row)
    pair = int(np.flatnonzero(preferences.row_P == row)[0])
    return {
        "picture": preferences.pictures[int(preferences.picture_P2[pair, side])],
        "file": path.name,
        "row": within,
        "column": PICTURES[side],
        "person": str(preferences.users[int(preferences.user_P[pair])]),
        "reason": str(reason),
    }


def as_line(entry: Mapping[str, Any]) -> str:
    return "{file}, row {row}, {column}, of person {person}: {reason}".format(**entry)


def listed(folder: Path) -> list[dict[str, Any]]:
    """All entries that were written so far, by all processes."""
    return [
        entry
        for path in sorted(folder.glob(f"{UNREADABLE}*.json"))
        for entry in json.loads(path.read_text(encoding="utf-8"))
    ]


def lost_pictures(folder: Path, plan: Plan) -> NDArray[np.bool_]:
    """Which of the plan's pictures are listed, N."""
    names = {entry["picture"] for entry in listed(folder)}
    return np.array([name in names for name in plan.preferences.pictures], dtype=bool)


def without(person: PersonPairs, lost_N: NDArray[np.bool_], plan: Plan) -> PersonPairs:
    """The same person, without the queries that show a lost picture."""
    kept_P = ~lost_N[plan.preferences.picture_P2[person.query_P]].any(axis=1)
    if kept_P.all():
        return person
    queries = {key: value[kept_P] for key, value in vars(person).items() if key.endswith("_P")}
    return replace(person, **queries)


def refuse_too_many(found: Sequence[Mapping[str, Any]], total: int, share: float) -> None:
    """Raises ValueError, with the first few, for more than that share of so many pictures."""
    if len(found) > share * total:
        raise ValueError(
            f"{len(found)} of {total} pictures cannot be read, more than unreadable_share {share} "
            f"allows: {'; '.join(as_line(entry) for entry in found[:3])}; mend the files, or raise "
            "--unreadable_share, and go on with --resume"
        )
