"""Many pictures of a pipeline, a batch at a time, with a bar that says how far it is.

Legend: B pictures of a batch, H W sides in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ppd_model.pipeline import Pipeline
from ppd_model.types import Embedding, ImageRequest
from training.jobs.shared_options import SamplingOptions

SAMPLING = {
    "steps",
    "guidance_scale",
    "solver",
    "guidance_interval",
    "snr_shift",
    "guidance_rescale",
}
"""Those of a configuration's values that a request has too."""


def picture_requests(
    options: SamplingOptions,
    prompts: Sequence[str],
    seeds: Iterable[int],
    user_emb: Iterable[Embedding | None],
    strength: float = 1.0,
) -> list[ImageRequest]:
    """One for each prompt, with its seed and its person's embedding (None: the base model)."""
    own = sampling_of(options)
    return [
        ImageRequest(prompt=prompt, seed=seed, user_emb_D=emb_D, strength=strength, **own)
        for prompt, seed, emb_D in zip(prompts, seeds, user_emb, strict=True)
    ]


def sampling_of(options: SamplingOptions) -> dict[str, Any]:
    """How pictures are made, as a request has it and results say it."""
    return options.model_dump(include=SAMPLING)


def painted(
    pipeline: Pipeline, requests: Sequence[ImageRequest], batch: int, what: str
) -> Iterator[NDArray[np.uint8]]:
    """The pictures of each batch of the requests in turn, B x H x W x 3."""
    with tqdm(total=len(requests), desc=what, unit="picture", mininterval=5) as bar:
        for first in range(0, len(requests), batch):
            made = pipeline.generate(requests[first : first + batch])
            bar.update(len(made))
            yield np.stack([one.image_HWC for one in made])
