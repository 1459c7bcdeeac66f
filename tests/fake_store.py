"""A painted store's facts without the painting: flat pictures, random looks."""

from __future__ import annotations

import numpy as np

from training.world.scene import CONTENTS, LOOKS


class SameLooks:
    """In the place of a Standardizer: reads every picture as average."""

    def looks(self, images_NHW3: np.ndarray, content_N: np.ndarray) -> np.ndarray:
        return np.zeros((len(content_N), len(LOOKS)), dtype=np.float32)


class FakeStore:
    """`per_content` pictures of each content: patches of random colours, 128 x 128."""

    def __init__(self, per_content: int = 10) -> None:
        rng = np.random.default_rng(0)
        count = CONTENTS * per_content
        patches = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
        self.pictures = patches.repeat(32, 1).repeat(32, 2)
        self.content = np.arange(count) % CONTENTS
        self.looks = rng.normal(size=(count, len(LOOKS))).astype(np.float32)
        self.standardizer = SameLooks()

    def __len__(self) -> int:
        return len(self.content)

    def by_content(self) -> list[np.ndarray]:
        return [np.flatnonzero(self.content == content) for content in range(CONTENTS)]
