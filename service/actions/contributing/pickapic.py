"""Contributed answers as rows of Pick-a-Pic, and files of them.

The columns are the published data set's, in its order; `training.data.pickapic` reads them. What is
not known of an answer is null. Times are days: to the second they would lead back to a request.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from service.infra.sql.oversight.exports import Contributed
from service.infra.whole_files import whole_file

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
PICTURES = ("jpg_0", "jpg_1")
LABELS = [name for name in SCHEMA.names if name not in PICTURES]
_MADE_OF = b"ppd.made_of"
_GROUP_ROWS = 256
_GROUP_BYTES = 32 * 2**20
"""A group of rows ends with either: so much is in memory at a time."""


def row_of(one: Contributed, uids: Sequence[str], models: Sequence[str]) -> dict[str, Any]:
    """An answer's row, without its pictures.

    `uids` name its two pictures by their bytes, `models` what made them.
    """
    preferred = one.choice.preferred
    labels = (0.5, 0.5) if preferred is None else (float(preferred == 0), float(preferred == 1))
    return {
        "are_different": preferred is not None,
        "best_image_uid": "tie" if preferred is None else uids[preferred],
        "caption": one.choice.caption,
        "created_at": one.choice.created_at.replace(
            hour=0, minute=0, second=0, microsecond=0, tzinfo=None
        ),
        "has_label": True,
        "image_0_uid": uids[0],
        "image_0_url": "",
        "image_1_uid": uids[1],
        "image_1_url": "",
        "label_0": labels[0],
        "label_1": labels[1],
        "model_0": models[0],
        "model_1": models[1],
        "ranking_id": one.answer,
        "user_id": one.person,
        "num_example_per_prompt": None,
        "__index_level_0__": None,
    }


def made_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """What a file of these rows is made of, as one hash: pictures are in it by their uids."""
    said = json.dumps(rows, default=str, sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def is_made_of(path: Path, digest: str, rows: int) -> bool:
    """Whether a whole file is there that was made of exactly this, and no picture was lost."""
    try:
        footer = pq.read_metadata(path)
    except (FileNotFoundError, pa.ArrowInvalid):
        return False
    said = (footer.metadata or {}).get(_MADE_OF)
    return bool(said == digest.encode() and footer.num_rows == rows)


class PickAPicFile:
    """Takes rows one by one, and has a group of them in memory at most."""

    def __init__(self, file: BinaryIO, digest: str) -> None:
        self._writer = pq.ParquetWriter(
            file,
            SCHEMA.with_metadata({_MADE_OF: digest.encode()}),
            compression={name: "none" if name in PICTURES else "zstd" for name in SCHEMA.names},
            use_dictionary=["caption", "model_0", "model_1", "user_id"],
            write_statistics=LABELS,
        )
        self._rows: list[Mapping[str, Any]] = []
        self._bytes = 0

    def add(self, row: Mapping[str, Any], pictures: Sequence[bytes]) -> None:
        self._rows.append({**row, **dict(zip(PICTURES, pictures, strict=True))})
        self._bytes += sum(map(len, pictures))
        if len(self._rows) >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._end_group()

    def close(self) -> None:
        self._end_group()
        self._writer.close()

    def _end_group(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=SCHEMA))
            self._rows, self._bytes = [], 0


@contextmanager
def pickapic_file(path: Path, digest: str) -> Iterator[PickAPicFile]:
    """A file that is there once the block has ended, whole."""
    with whole_file(path) as file, closing(PickAPicFile(file, digest)) as rows:
        yield rows
