"""The pictures that the VLM reads, taken out of the parquet files once, for reading in any order.

A support set's eight pictures lie anywhere among hundreds of gigabytes. They are copied, as the
bytes they are, into shards in the order of the files; the VLM then reads them person by
person.

Dimension letters: N pictures, X bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image

from ppd_model.pictures.reading import KEPT, PictureError, read_picture
from training.data.shards import ShardFolder, mapped


def write_pictures(folder: ShardFolder, name: str, found: Sequence[bytes | PictureError]) -> None:
    """One shard: all bytes after each other, and where each picture ends; those that are not to be
    had have none."""
    jpegs = [b"" if isinstance(each, PictureError) else each for each in found]
    ends_N = np.cumsum([len(jpeg) for jpeg in jpegs])
    joined = np.frombuffer(b"".join(jpegs), dtype=np.uint8).copy()
    folder.write(name, {"jpeg_X": joined, "end_N": ends_N})


class SupportPictures:
    """Reads them back by place. The files are mapped, not loaded."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._bytes = [mapped(path, "jpeg_X") for path in paths]
        self._ends = [mapped(path, "end_N").tolist() for path in paths]
        self._first_place = [0, *accumulate(len(ends) for ends in self._ends)]

    def open(self, place: int) -> Image.Image:
        """The picture as the service keeps it. Raises PictureError for bytes that are none."""
        shard = bisect_right(self._first_place, place) - 1
        within = place - self._first_place[shard]
        begin = self._ends[shard][within - 1] if within else 0
        jpeg_X = self._bytes[shard][begin : self._ends[shard][within]]
        if not len(jpeg_X):
            raise PictureError("has no bytes that can be read from its file")
        return read_picture(jpeg_X.numpy().tobytes(), KEPT)
