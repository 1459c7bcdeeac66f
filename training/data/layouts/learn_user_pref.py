"""learn-user-pref (arXiv 2508.08220): Pick-a-Pic by person, as pickles of records.

A record has `user_id`; the pairs of its history, `reference_list` (liked), `reference_list_bad`
(disliked) and `reference_prompt_list`; and one pair more, `image0`, `image1`, `prompt` and `label0`
(1: image0 is preferred). Pictures are the bytes of their files. Nothing in a pickle runs here
(inert_pickle.py). A file is held in memory while its pictures are read: leave the training set in
the parts in which it is published. What ties and splits were is as its authors left it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ppd_model.pictures.reading import PictureError
from training.data.layouts.inert_pickle import read_records
from training.data.layouts.listed import Answer, ListedFiles
from training.data.pair_files import IntArray

Pair = tuple[str, bytes | None, bytes | None, int | None]
"""Caption, two pictures, and which is preferred."""


class LearnUserPref(ListedFiles):
    """A row is a pair of a record. A picture's id is the sha256 of its bytes; of a pair of a
    history, of which is not said how it was shown, the lesser id is the first."""

    kind = "pkl"
    _held: tuple[Path, list[dict[str, Any]]] | None = None

    def answers(self, path: Path) -> list[Answer]:
        return [
            Answer(str(record["user_id"]), caption, (_id(first), _id(second)), preferred)
            for record in self._records(path)
            for caption, first, second, preferred in pairs_of(record)
        ]

    def _records(self, path: Path) -> list[dict[str, Any]]:
        held = self._held
        if held is None or held[0] != path:
            self._held = held = None  # two files at once may be more than the memory
            records = read_records(path)
            for number, record in enumerate(records):
                if missing := FIELDS - record.keys():
                    raise ValueError(f"{path}, record {number}: no {', '.join(sorted(missing))}")
            self._held = held = (path, records)
        return held[1]

    def _pictures_of(self, path: Path, source_N2: IntArray) -> Iterator[bytes | PictureError]:
        wanted = iter(source_N2.tolist())
        row, side = next(wanted)
        pairs = (pair for record in self._records(path) for pair in pairs_of(record))
        for number, pair in enumerate(pairs):
            while number == row:
                yield pair[1:3][side] or PictureError("has no bytes")
                try:
                    row, side = next(wanted)
                except StopIteration:
                    return


FIELDS = {
    *("user_id", "reference_list", "reference_list_bad", "reference_prompt_list"),
    *("image0", "image1", "prompt", "label0"),
}


def pairs_of(record: Mapping[str, Any]) -> Iterator[Pair]:
    """The pairs of the history, then the one more."""
    for liked, disliked, caption in zip(
        record["reference_list"],
        record["reference_list_bad"],
        record["reference_prompt_list"],
        strict=True,
    ):
        swapped = (_id(disliked) or "") < (_id(liked) or "")
        yield (caption, disliked, liked, 1) if swapped else (caption, liked, disliked, 0)
    preferred = {1.0: 0, 0.0: 1}.get(float(record["label0"]))
    yield record["prompt"], record["image0"], record["image1"], preferred


def _id(picture: bytes | None) -> str | None:
    return hashlib.sha256(picture).hexdigest() if picture else None
