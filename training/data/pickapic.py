"""Pick-a-Pic v2 as it is distributed: parquet files, read streaming and never whole.

A row is one comparison of two pictures of a caption by one person. The labels of all rows are a
few hundred megabytes, the pictures about 190 GB: labels are read in batches of rows, pictures only
for the rows that are asked for, row group by row group.

Rows are numbered over all files, in the order of the files' names.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ppd_model.pictures.reading import PictureError

IntArray = NDArray[np.int64]

SCHEMA = pa.schema(
    [
        ("are_different", pa.bool_()),
        ("best_image_uid", pa.string()),
        ("caption", pa.string()),
        ("created_at", pa.timestamp("ns")),
        ("has_label", pa.bool_()),
        ("image_0_uid", pa.string()),
        ("image_0_url", pa.string()),
        ("image_1_uid", pa.string()),
        ("image_1_url", pa.string()),
        ("jpg_0", pa.binary()),
        ("jpg_1", pa.binary()),
        ("label_0", pa.float64()),
        ("label_1", pa.float64()),
        ("model_0", pa.string()),
        ("model_1", pa.string()),
        ("ranking_id", pa.int64()),
        ("user_id", pa.int64()),
        ("num_example_per_prompt", pa.int64()),
        ("__index_level_0__", pa.int64()),
    ]
)
"""All columns of the published files. Only those of LABELS and PICTURES are needed."""


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_picture(kind: pa.DataType) -> bool:
    """Its file's bytes; or `{bytes, path}`, as the library `datasets` writes pictures."""
    if not pa.types.is_struct(kind):
        return _is_bytes(kind)
    return any(field.name == "bytes" and _is_bytes(field.type) for field in kind.fields)


_TEXT = ("text", _is_text)
_NUMBER = ("a number", _is_number)
_TRUTH_VALUE = ("a boolean", pa.types.is_boolean)
_USER = ("an integer or text", lambda kind: pa.types.is_integer(kind) or _is_text(kind))
_PICTURE = ("bytes, alone or in a struct as `bytes`", _is_picture)
_EXPECTED: dict[str, tuple[str, Callable[[pa.DataType], bool]]] = {
    "are_different": _TRUTH_VALUE,
    "best_image_uid": _TEXT,
    "caption": _TEXT,
    "has_label": _TRUTH_VALUE,
    "image_0_uid": _TEXT,
    "image_1_uid": _TEXT,
    "label_0": _NUMBER,
    "label_1": _NUMBER,
    "user_id": _USER,
    "jpg_0": _PICTURE,
    "jpg_1": _PICTURE,
}
PICTURES = ("jpg_0", "jpg_1")
LABELS = tuple(name for name in _EXPECTED if name not in PICTURES)


class PickAPic:
    """The parquet files of one data set.

    `places` are files, folders of parquet files, or glob patterns. Raises ValueError for a place
    without parquet files, for a file that is none, and for a column that is missing or of another
    type, with the file and the column named.
    """

    def __init__(self, places: Sequence[str | Path]) -> None:
        self.files = find_files(places)
        metadata = [_checked_metadata(path) for path in self.files]
        self._footers = [_footer(path) for path in self.files]
        self._first_row_F = np.cumsum([0, *(int(each.num_rows) for each in metadata)])

    def __len__(self) -> int:
        """How many rows there are, labelled or not."""
        return int(self._first_row_F[-1])

    def fingerprint(self) -> list[dict[str, Any]]:
        """Name, size, rows and the footer's sha256 of each file.

        A parquet footer holds the sizes, places and bounds of all columns, so it tells files apart
        without reading hundreds of gigabytes.
        """
        rows_F = np.diff(self._first_row_F).tolist()
        return [
            {"file": path.name, "bytes": path.stat().st_size, "rows": rows, "footer_sha256": digest}
            for path, rows, digest in zip(self.files, rows_F, self._footers, strict=True)
        ]

    def labels(self, batch_rows: int = 16_384) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Batches of the columns in LABELS, each with the number of its first row."""
        for path, first_row in zip(self.files, self._first_row_F, strict=False):
            with pq.ParquetFile(path) as file:
                row = int(first_row)
                for batch in file.iter_batches(batch_size=batch_rows, columns=list(LABELS)):
                    yield row, batch
                    row += batch.num_rows

    def pictures(self, source_N2: IntArray) -> Iterator[bytes | PictureError]:
        """The bytes of these pictures' files: for each its row, and 0 for jpg_0 or 1 for jpg_1.

        They come in the order asked for, which must be that of the rows; row groups without any of
        them are not read. Where a row has no picture, or its part of the file is damaged, the
        reason comes in its place. Raises ValueError for another order.
        """
        if (np.diff(source_N2[:, 0]) < 0).any():
            raise ValueError("pictures must be asked for in the order of their rows")
        for index, path in enumerate(self.files):
            first_row, end_row = self._first_row_F[index : index + 2].tolist()
            begin, end = np.searchsorted(source_N2[:, 0], (first_row, end_row))
            if begin < end:
                yield from _pictures_of_file(path, source_N2[begin:end] - (first_row, 0))

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


def find_files(places: Sequence[str | Path]) -> list[Path]:
    """The parquet files of these places, each once, by name."""
    found: set[Path] = set()
    for place in places:
        path = Path(place)
        inside = path.glob("*.parquet") if path.is_dir() else map(Path, glob.glob(str(place)))
        here = {each.resolve() for each in inside if each.is_file()}
        if not here:
            raise ValueError(f"{place}: no parquet file there")
        found |= here
    return sorted(found, key=lambda path: (path.name, str(path)))


def _checked_metadata(path: Path) -> pq.FileMetaData:
    try:
        with pq.ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
    except pa.ArrowException as error:
        raise ValueError(f"{path}: not a readable parquet file: {error}") from error
    missing = [name for name in _EXPECTED if name not in schema.names]
    if missing:
        raise ValueError(f"{path}: no column {', '.join(map(repr, missing))}")
    for name, (expected, accepts) in _EXPECTED.items():
        kind = schema.field(name).type
        if not accepts(kind):
            raise ValueError(f"{path}: column {name!r} is {kind}, expected {expected}")
    return metadata


def _footer(path: Path) -> str:
    """The sha256 of the footer, whose length stands before the closing magic number."""
    with path.open("rb") as file:
        file.seek(-8, 2)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, 2)
        return hashlib.sha256(file.read(length)).hexdigest()


def _pictures_of_file(path: Path, source_N2: IntArray) -> Iterator[bytes | PictureError]:
    with pq.ParquetFile(path) as file:
        rows_G = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
        ends = np.searchsorted(source_N2[:, 0], np.cumsum(rows_G))
        for group, (begin, end) in enumerate(pairwise([0, *ends.tolist()])):
            if begin == end:
                continue
            found = _pictures_of_group(file, group, sum(rows_G[:group]), source_N2[begin:end])
            came = 0
            try:
                for picture in found:
                    yield picture
                    came += 1
            except (pa.ArrowException, OSError) as error:
                damage = " ".join(str(error).split())
                for _ in range(end - begin - came):
                    yield PictureError(f"its part of the file cannot be read: {damage}")


def _pictures_of_group(
    file: pq.ParquetFile, group: int, first_row: int, source_N2: IntArray
) -> Iterator[bytes | PictureError]:
    columns = [PICTURES[side] for side in np.unique(source_N2[:, 1])]
    wanted = iter(source_N2.tolist())
    row, side = next(wanted)
    for batch in file.iter_batches(batch_size=64, row_groups=[group], columns=columns):
        while row < first_row + batch.num_rows:
            found = batch.column(PICTURES[side])[row - first_row].as_py()
            jpeg: bytes | None = found["bytes"] if isinstance(found, dict) else found
            yield jpeg or PictureError("has no bytes")
            try:
                row, side = next(wanted)
            except StopIteration:
                return
        first_row += batch.num_rows
