"""What every reward offers.

Legend: B pictures, H W sides in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.uint8]
ScoresB = NDArray[np.float32]


class Reward(Protocol):
    """A number for each picture of a prompt; more is better.

    name: as in configurations and results. identity: the files behind it, by name and sha256, or
    by what else they are known, and the precision it computes in: scores of equal identity may be
    compared.
    """

    name: str
    identity: str

    def score(self, images_BHW3: Pictures, prompts: Sequence[str]) -> ScoresB:
        """One float32 for each picture. Raises ValueError unless there is a prompt for each."""


def check_batch(images_BHW3: Pictures, prompts: Sequence[str]) -> None:
    """Raises ValueError for pictures that are not B x H x W x 3 uint8 with a prompt each."""
    if images_BHW3.ndim != 4 or images_BHW3.shape[3] != 3 or images_BHW3.dtype != np.uint8:
        raise ValueError(
            f"pictures of shape {images_BHW3.shape} {images_BHW3.dtype}: "
            f"expected B x H x W x 3 uint8"
        )
    if len(images_BHW3) != len(prompts):
        raise ValueError(f"{len(images_BHW3)} pictures and {len(prompts)} prompts")
