"""What a picture of the world is made of: content, looks and a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDE_PX = 128
SUBJECTS = ("flower", "fish", "mushroom", "boat", "house", "rocket", "balloon", "tree")
SETTINGS = ("mountains", "hills", "sea", "town", "night", "desert")
LOOKS = (
    "brightness",
    "contrast",
    "saturation",
    "warmth",
    "detail",
    "size",
    "outline",
    "vignette",
)
CONTENTS = len(SUBJECTS) * len(SETTINGS)

LooksL = NDArray[np.float32]
"""Eight looks in the order of ``LOOKS``."""


@dataclass(frozen=True)
class Scene:
    """One picture to paint. ``looks_L`` holds each look in [-1, 1], in the order of ``LOOKS``."""

    subject: int
    setting: int
    looks_L: LooksL
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.subject < len(SUBJECTS):
            raise ValueError(f"subject {self.subject}: expected 0 to {len(SUBJECTS) - 1}")
        if not 0 <= self.setting < len(SETTINGS):
            raise ValueError(f"setting {self.setting}: expected 0 to {len(SETTINGS) - 1}")
        if self.looks_L.shape != (len(LOOKS),) or not (np.abs(self.looks_L) <= 1).all():
            raise ValueError(f"looks {self.looks_L}: expected {len(LOOKS)} numbers in [-1, 1]")

    @property
    def content(self) -> int:
        """The picture's content: subject and setting as one number, 0 to 47."""
        return content_id(self.subject, self.setting)


def content_id(subject: int, setting: int) -> int:
    """Subject and setting as one number, 0 to 47."""
    return subject * len(SETTINGS) + setting
