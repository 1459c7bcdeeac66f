"""Data sets small enough that all answers, without their pictures, are held in memory.

Legend: F files, N pictures, 2: row of the files, and which of its pictures.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

import pyarrow as pa

from ppd_model.files.artifact import sha256_of
from ppd_model.pictures.reading import PictureError
from training.data.pair_files import PairFiles
from training.data.pickapic import find_files


@dataclass(frozen=True)
class Answer:
    """What one person said of two pictures of a caption: 0 or 1, None for a tie.

    pictures: an id each, the same wherever the same picture is shown; None where there is none.
    """

    person: str
    caption: str
    pictures: tuple[str | None, str | None]
    preferred: int | None


class ListedFiles(PairFiles):
    """Files of one kind, each read whole once. Raises ValueError for files of another layout."""

    kind: ClassVar[str]
    """What their names end in."""

    def __init__(self, places: Sequence[str | Path]) -> None:
        files = find_files(places, self.kind)
        self._answers = {path: self.answers(path) for path in files}
        rows_F = [len(self._answers[path]) for path in files]
        super().__init__(files, rows_F, [sha256_of(path) for path in files])

    @abstractmethod
    def answers(self, path: Path) -> list[Answer]:
        """Those of one file, in its order."""

    def labels(self, batch_rows: int = 16_384) -> Iterator[tuple[int, pa.RecordBatch]]:
        """As `PairFiles.labels`."""
        for path, first_row in zip(self.files, self._first_row_F.tolist(), strict=False):
            answers = self._answers[path]
            for begin in range(0, len(answers), batch_rows):
                yield first_row + begin, as_labels(answers[begin : begin + batch_rows])


def as_labels(answers: Sequence[Answer]) -> pa.RecordBatch:
    """The columns that `preferences.judge_rows` reads: those of Pick-a-Pic's labels."""
    decided = [answer.preferred is not None for answer in answers]
    first = [0.5 if each.preferred is None else float(each.preferred == 0) for each in answers]
    best = [None if each.preferred is None else each.pictures[each.preferred] for each in answers]
    return pa.RecordBatch.from_pydict(
        {
            "are_different": pa.array(decided, pa.bool_()),
            "best_image_uid": pa.array(best, pa.string()),
            "caption": pa.array([each.caption for each in answers], pa.string()),
            "has_label": pa.array([True] * len(answers), pa.bool_()),
            "image_0_uid": pa.array([each.pictures[0] for each in answers], pa.string()),
            "image_1_uid": pa.array([each.pictures[1] for each in answers], pa.string()),
            "label_0": pa.array(first, pa.float64()),
            "label_1": pa.array([1 - label for label in first], pa.float64()),
            "user_id": pa.array([each.person for each in answers], pa.string()),
        }
    )


def read_beside(root: Path, name: str | None) -> bytes | PictureError:
    """The bytes of a picture's own file, or why there are none; nothing outside `root` is read."""
    if name is None:
        return PictureError("has no file")
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return PictureError(f"{name!r} lies outside {root}")
    try:
        return (root / name).read_bytes()
    except OSError as error:
        return PictureError(f"{root / name}: {error.strerror}")
