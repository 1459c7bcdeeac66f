"""Pictures painted and scored part by part: processes share the parts, an interrupted job goes on.

A part is always the same pictures, so scores are the same bits, however many processes there were.

Legend: A rewards, K pictures, B pictures of a part.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppd_model.pipeline import Pipeline
from ppd_model.types import ImageRequest
from training.data.shards import read_shards
from training.precompute.processes import Worker, open_folder
from training.rewards.reward import Reward

FloatArray = NDArray[np.float32]
Picture = NDArray[np.uint8]
SHOWN, PARTS = 8, "scores"
"""So many of the first pictures are kept to look at."""


def score_parts(
    pipeline: Pipeline,
    requests: Sequence[ImageRequest],
    rewards: Sequence[Reward],
    folder: Path,
    made_with: Mapping[str, Any],
    worker: Worker,
    *,
    batch: int,
    prepare: Callable[[], None] = lambda: None,
) -> tuple[FloatArray, list[Picture]]:
    """Every reward of the requests' pictures, A x K, and the first of the pictures.

    The parts are kept in `folder`, until `forget` takes them away. prepare: what is to be done once
    before anything is painted. Raises ValueError for a folder that was made with something else.
    """
    parts = open_folder(folder, {**made_with, "batch": batch}, True, worker)
    prepared = False
    for name, part in worker.missing(parts, PARTS, len(requests), batch):
        if not prepared:
            prepare()
            prepared = True
        own = requests[part]
        images = np.stack([made.image_HWC for made in pipeline.generate(own)])
        prompts = [request.prompt for request in own]
        scores_AB = np.stack([reward.score(images, prompts) for reward in rewards])
        kept = images[: max(0, SHOWN - part.start)]
        parts.write(name, {"score_AB": scores_AB, **({"image_BHW3": kept} if len(kept) else {})})
    worker.wait()
    if worker.is_first:
        parts.finish()
    worker.wait()
    shards = read_shards(folder, PARTS)
    scores_AK = np.concatenate([shard["score_AB"].numpy() for shard in shards], axis=1)
    shown = [image for shard in shards for image in shard.get("image_BHW3", ())]
    return scores_AK.astype(np.float32), [image.numpy() for image in shown]


def forget(folder: Path, worker: Worker) -> None:
    """Take the parts away, once what they came to is written."""
    worker.wait()
    if worker.is_first:
        shutil.rmtree(folder, ignore_errors=True)
