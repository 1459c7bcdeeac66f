"""Every picture of a source, scored by every reward with the captions it is shown with.

Scores are written part by part, so that an interrupted run goes on where it was: for Pick-a-Pic
this is a day's work of a GPU.

Legend: A rewards, X pictures shown with a caption, H W sides in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.shards import read_shards
from training.precompute.processes import Worker, open_folder
from training.rewards.reward import Reward
from training.synthetic_users.pairs.pair_folder import SourcePairs
from training.synthetic_users.pairs.source_pictures import PictureReader

FloatArray = NDArray[np.float32]
ROWS_PER_PART = 4096
ALONE = Worker()


def score_source(
    source: SourcePairs,
    rewards: Sequence[Reward],
    read: PictureReader,
    out: Path,
    *,
    batch: int = 64,
    worker: Worker = ALONE,
) -> FloatArray:
    """Scores of what `source.shown()` lists, A x X; parts that `out` holds are not made again.

    Each process scores every so-manieth part; all return all scores.

    Raises ValueError when `out` holds scores of other pictures or by other rewards.
    """
    shown_X2 = source.shown()[0].numpy()
    provenance = {
        "rewards": {reward.name: reward.identity for reward in rewards},
        "shown": len(shown_X2),
        "source": source.provenance,
    }
    folder = open_folder(out, provenance, True, worker)
    for name, part in worker.missing(folder, "scores", len(shown_X2), ROWS_PER_PART):
        scores = _score_rows(shown_X2[part], source.captions, rewards, read, batch)
        folder.write(name, {"score_AX": scores})
    worker.wait()
    if worker.is_first:
        folder.finish()
    worker.wait()
    parts = [shard["score_AX"].numpy() for shard in read_shards(out, "scores-")]
    return np.concatenate(parts, axis=1)


def _score_rows(
    rows_X2: NDArray[np.int64],
    captions: Sequence[str],
    rewards: Sequence[Reward],
    read: PictureReader,
    batch: int,
) -> FloatArray:
    picture_X, caption_X = rows_X2.T
    places_X, own_X = np.unique(picture_X, return_inverse=True)
    pictures = read(places_X)
    scores = np.empty((len(rewards), len(rows_X2)), dtype=np.float32)
    held: list[NDArray[np.uint8]] = []
    first_held = 0
    for first in range(0, len(rows_X2), batch):
        rows = slice(first, min(first + batch, len(rows_X2)))
        # Rows go up picture by picture: what lies before this batch's first is done with.
        held = held[own_X[rows.start] - first_held :]
        first_held = int(own_X[rows.start])
        while first_held + len(held) <= own_X[rows.stop - 1]:
            held.append(next(pictures))
        images = np.stack([held[own - first_held] for own in own_X[rows]])
        prompts = [captions[caption] for caption in caption_X[rows]]
        for row, reward in enumerate(rewards):
            scores[row, rows] = reward.score(images, prompts)
    return scores
