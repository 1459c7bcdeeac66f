"""ViPer's way: what a person likes goes into the prompt, what they dislike into the negative one.

ViPer (arXiv 2407.17365) has a language model write both lists from a person's comments and paints
with them, untrained. Here the lists are those of the VLM's profile, put behind the caption.
"""

from __future__ import annotations

from collections.abc import Sequence

from ppd_model.types import EncodedUser, ImageRequest
from training.evaluate.painting import Prompt
from training.jobs.picture_batches import SAMPLING
from training.jobs.shared_options import SolverOptions


def word_requests(
    options: SolverOptions, prompts: Sequence[Prompt], read: Sequence[EncodedUser]
) -> list[ImageRequest]:
    """One for each prompt and the person it is painted for."""
    sampling = options.model_dump(include=SAMPLING)
    return [
        ImageRequest(
            prompt=", ".join([prompt.text, *user.likes]),
            negative_prompt=", ".join(user.dislikes),
            seed=prompt.seed,
            **sampling,
        )
        for prompt, user in zip(prompts, read, strict=True)
    ]
