"""What goes into the models and comes out of them, for whoever uses them. Needs no torch.

Legend: H W picture sides, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Embedding = NDArray[np.float32]
"""A user embedding, D."""
Pixels = NDArray[np.uint8]
"""A picture, H x W x 3."""


Solver = Literal["ddpm", "dpm++2m", "dpm++2m-sde"]
"""How a step is made: the ancestral sampler of Stable Cascade, or a second-order multistep solver
of the probability flow or of the diffusion with noise (see `ppd_model.nets.solver`)."""


@dataclass(frozen=True)
class Sampling:
    """How a picture is made where its request does not say."""

    steps: int = 20
    solver: Solver = "ddpm"
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Guidance acts at diffusion times above the first and up to the second: 1 is noise."""


@dataclass(frozen=True)
class ImageRequest:
    """One picture. ``user_emb_D`` None, or strength 0, gives the base model's picture.

    ``seed`` lies in [0, 2**32). Guidance of 1 or less means none: the prompt alone is followed.
    ``strength`` 1 is the adapter as trained. Sides, steps, solver and the interval of guidance
    default to the preset's. ``snr_shift`` takes the times that Stable Cascade's own sampler visits
    (`nets.diffusion.shifted_times`), None evenly spaced ones from 1 on. ``guidance_rescale``: how
    far the guided noise is scaled back to the standard deviation of the prompt's.
    """

    prompt: str
    seed: int
    user_emb_D: Embedding | None = None
    strength: float = 1.0
    negative_prompt: str = ""
    steps: int | None = None
    guidance_scale: float = 4.0
    width_px: int | None = None
    height_px: int | None = None
    solver: Solver | None = None
    guidance_interval: tuple[float, float] | None = None
    snr_shift: float | None = None
    guidance_rescale: float = 0.0


@dataclass(frozen=True)
class Generated:
    """A picture, and the seconds that its job, or its batch, took to denoise and to decode.

    ``queue_s`` is how long the job waited inside the engine for its first step, ``shared_with`` the
    mean number of other jobs in a step.
    """

    image_HWC: Pixels
    seed: int
    denoise_s: float
    decode_s: float
    queue_s: float = 0.0
    shared_with: float = 0.0

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.image_HWC, "RGB")


@dataclass(frozen=True)
class LabelledPair:
    """One answered pair: two pictures of one caption, and which (0 or 1) was preferred."""

    caption: str
    image_0: Image.Image
    image_1: Image.Image
    preferred: int


@dataclass(frozen=True)
class EncodedUser:
    """What four answers, or a text, or both, say about a person.

    ``transcript`` is the whole response, chain of thought included, that was read to make
    ``user_emb_D``; where that is not kept, it is empty. ``confidence`` in [0, 1] is the geometric
    mean of the probabilities that the model gives to the profile's tokens after seeing the
    answers: how sure it is of its own words, or, for an edited profile, how far the answers bear
    those words out. It is no probability that the profile is right.
    """

    profile: str
    transcript: str
    user_emb_D: Embedding
    confidence: float
    likes: list[str] = field(default_factory=list)
    dislikes: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    """Words of a given text that the model was not trained on; it may pass over them."""
    heading_given: bool = False
    """Whether the model came to no profile by itself, and was given the profile's heading."""


class CacheState(TypedDict):
    """A cache's entries, and how often what was asked for was there."""

    kept: int
    hits: int
    misses: int


class EngineState(TypedDict):
    """How the running batch stands, and what was counted since the model was loaded.

    Rows are pictures under way, ``network_rows`` what they take of the network's batch. ``step_s``:
    latent shape -> rows of the network -> seconds of a step; the usual shape first. ``counts``:
    passes, row_steps, jobs that were made, refused ones, out_of_memory (a batch was halved then),
    and failed_CODE for each code of the engine's.
    """

    queued_rows: int
    queued_rows_at_most: int
    running_rows: int
    network_rows: int
    decoding_rows: int
    decoded_pictures: int
    decoded_batches: int
    previews: int
    step_s: dict[str, dict[int, float]]
    texts: CacheState
    users: CacheState
    counts: dict[str, int]
