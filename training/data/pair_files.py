"""Files that hold comparisons of two pictures by people, whatever their layout.

A row is one comparison of two pictures of a caption by one person. Rows are numbered over all
files, in the order of the files' names.

Legend: N pictures, 2: row of the files, and which of its pictures; F files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ppd_model.pictures.reading import PictureError

IntArray = NDArray[np.int64]
PICTURES = ("jpg_0", "jpg_1")
"""Names of a row's two pictures, as Pick-a-Pic calls its columns."""


class PairFiles(ABC):
    """The files of one data set: how many rows each has, and the sha256 that tells it apart."""

    def __init__(self, files: Sequence[Path], rows_F: Sequence[int], sha256_F: Sequence[str]):
        self.files = list(files)
        self._sha256_F = list(sha256_F)
        self._first_row_F = np.cumsum([0, *rows_F])

    @abstractmethod
    def labels(self, batch_rows: int = 16_384) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Batches of the columns that `preferences.judge_rows` reads, each with the number of its
        first row."""

    @abstractmethod
    def _pictures_of(self, path: Path, source_N2: IntArray) -> Iterator[bytes | PictureError]:
        """As `pictures`, of one file, whose rows are counted from 0."""

    def __len__(self) -> int:
        """How many rows there are, labelled or not."""
        return int(self._first_row_F[-1])

    def fingerprint(self) -> list[dict[str, Any]]:
        """Name, size, rows and sha256 of each file: of a parquet file's footer, of others whole.

        A parquet footer holds the sizes, places and bounds of all columns, so it tells files apart
        without reading hundreds of gigabytes.
        """
        rows_F = np.diff(self._first_row_F).tolist()
        return [
            {"file": path.name, "bytes": path.stat().st_size, "rows": rows, "footer_sha256": digest}
            for path, rows, digest in zip(self.files, rows_F, self._sha256_F, strict=True)
        ]

    def pictures(self, source_N2: IntArray) -> Iterator[bytes | PictureError]:
        """The bytes of these pictures' files: for each its row, and 0 or 1 for which of the row's.

        They come in the order asked for, which must be that of the rows; what holds none of them
        is not read. Where a row has no picture, or its part of the file is damaged, the reason
        comes in its place. Raises ValueError for another order.
        """
        if (np.diff(source_N2[:, 0]) < 0).any():
            raise ValueError("pictures must be asked for in the order of their rows")
        for index, path in enumerate(self.files):
            first_row, end_row = self._first_row_F[index : index + 2].tolist()
            begin, end = np.searchsorted(source_N2[:, 0], (first_row, end_row))
            if begin < end:
                yield from self._pictures_of(path, source_N2[begin:end] - (first_row, 0))

    def captions(self) -> list[str]:
        """What was typed, each once, in the order of the rows, labelled or not."""
        found: dict[str, None] = {}
        for _, batch in self.labels():
            typed = batch.column("caption").drop_null().to_pylist()
            found |= dict.fromkeys(caption for caption in typed if caption.strip())
        return list(found)

    def file_of(self, row_N: IntArray) -> IntArray:
        """Which of the files each row is in."""
        return np.searchsorted(self._first_row_F, row_N, side="right") - 1

    def locate(self, row: int) -> tuple[Path, int]:
        """The file of a row, and the row within it."""
        index = int(self.file_of(np.array([row]))[0])
        return self.files[index], row - int(self._first_row_F[index])

    def place_of(self, row: int) -> str:
        """File and row within it, for messages."""
        path, within = self.locate(row)
        return f"{path}, row {within}"
