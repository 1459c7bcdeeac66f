"""The pictures behind a folder's latents, in their order, for rewards to look at.

A folder of generated_pairs.py holds them itself; one of training.precompute knows the parquet
files that it was made from.

Legend: N pictures, X of them that are asked for, H W sides in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ppd_model.pictures.reading import PictureError
from training.data.shards import ShardedRows, read_manifest, verified
from training.precompute.query_shards import decoded
from training.precompute.source_plan import plan_of
from training.precompute.unreadable import as_line, note

IntArray = NDArray[np.int64]
Picture = NDArray[np.uint8]
PictureReader = Callable[[IntArray], Iterator[Picture]]
"""Places among the latents, ascending, to uint8 pictures H x W x 3, all of one size."""

IMAGES = "images-"


def reader_of(folder: Path, side_px: int) -> PictureReader:
    """A reader of the folder's pictures; those of parquet files come as squares of `side_px`.

    Raises ValueError when the parquet files are not those that the folder was made from.
    """
    manifest = read_manifest(folder)
    if any(name.startswith(IMAGES) for name in manifest["shards"]):
        return _of_shards(verified(folder, IMAGES))
    plan = plan_of(folder)

    def read(places_X: IntArray) -> Iterator[Picture]:
        source_X2 = plan.query.source_N2[places_X]
        for (row, side), seen in zip(source_X2, decoded(plan, source_X2, side_px), strict=True):
            if isinstance(seen, PictureError):  # no pair shows what precompute could not read
                entry = note(plan, int(row), int(side), seen)
                raise ValueError(f"{as_line(entry)}; it could be read when {folder} was made")
            yield seen

    return read


def _of_shards(paths: list[Path]) -> PictureReader:
    rows_NHW3 = ShardedRows(paths, "image_NHW3")

    def read(places_X: IntArray) -> Iterator[Picture]:
        for place in places_X.tolist():
            yield rows_NHW3[torch.tensor([place])][0].numpy()

    return read
