"""Pick-a-Pic v2 as it is distributed: parquet files, read streaming and never whole.

A row is one comparison of two pictures of a caption by one person. The labels of all rows are a
few hundred megabytes, the pictures about 320 GB: labels are read in batches of rows, pictures only
for the rows that are asked for, row group by row group.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ppd_model.pictures.reading import PictureError
from training.data.pair_files import PICTURES, IntArray, PairFiles

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
LABELS = tuple(name for name in _EXPECTED if name not in PICTURES)


class PickAPic(PairFiles):
    """The parquet files of one data set.

    `places` are files, folders of parquet files, or glob patterns. Raises ValueError for a place
    without parquet files, for a file that is none, and for a column that is missing or of another
    type, with the file and the column named.
    """

    def __init__(self, places: Sequence[str | Path]) -> None:
        files = find_files(places)
        rows_F = [int(_checked_metadata(path).num_rows) for path in files]
        super().__init__(files, rows_F, [_footer(path) for path in files])

    def labels(self, batch_rows: int = 16_384) -> Iterator[tuple[int, pa.RecordBatch]]:
        """As `PairFiles.labels`: the columns in LABELS."""
        for path, first_row in zip(self.files, self._first_row_F, strict=False):
            with pq.ParquetFile(path) as file:
                row = int(first_row)
                for batch in file.iter_batches(batch_size=batch_rows, columns=list(LABELS)):
                    yield row, batch
                    row += batch.num_rows

    def _pictures_of(self, path: Path, source_N2: IntArray) -> Iterator[bytes | PictureError]:
        with pq.ParquetFile(path) as file:
            groups = range(file.metadata.num_row_groups)
            rows_G = [file.metadata.row_group(group).num_rows for group in groups]
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


def find_files(places: Sequence[str | Path], kind: str = "parquet") -> list[Path]:
    """The files of these places, each once, by name; in a folder those that end in .KIND."""
    found: set[Path] = set()
    for place in places:
        path = Path(place)
        inside = path.glob(f"*.{kind}") if path.is_dir() else map(Path, glob.glob(str(place)))
        here = {each.resolve() for each in inside if each.is_file()}
        if not here:
            raise ValueError(f"{place}: no {kind} file there")
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
