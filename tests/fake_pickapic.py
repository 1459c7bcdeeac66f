"""Rows in Pick-a-Pic's schema, and parquet files of them."""

from __future__ import annotations

import datetime
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from training.data.pickapic import SCHEMA

Row = dict[str, Any]


def jpeg(shade: int, width: int = 8, height: int = 8) -> bytes:
    """A grey picture."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (shade % 256,) * 3).save(buffer, "JPEG")
    return buffer.getvalue()


def row(user: int, caption: str, first: str, second: str, preferred: int, **changes: Any) -> Row:
    """A decided row; `changes` replace single columns."""
    return {
        "are_different": True,
        "best_image_uid": (first, second)[preferred],
        "caption": caption,
        "created_at": datetime.datetime(2024, 1, 1),
        "has_label": True,
        "image_0_uid": first,
        "image_0_url": "",
        "image_1_uid": second,
        "image_1_url": "",
        "jpg_0": jpeg(len(first)),
        "jpg_1": jpeg(len(second)),
        "label_0": float(preferred == 0),
        "label_1": float(preferred == 1),
        "model_0": "m",
        "model_1": "m",
        "ranking_id": 0,
        "user_id": user,
        "num_example_per_prompt": 1,
        "__index_level_0__": 0,
    } | changes


def write(path: Path, rows: Sequence[Row], per_group: int = 1000) -> Path:
    """One parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), path, row_group_size=per_group)
    return path
