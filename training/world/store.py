"""Painted pictures on disk, with their content and measured looks.

``python -m training.world.store --out runs/mini/world --count 30000`` paints and measures them in
parallel; every picture follows from ``--seed`` and its index alone.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.jobs.command_line import run_job
from training.jobs.configuration import Configuration
from training.jobs.shared_options import Out, Seed
from training.world.looks import STATISTICS, Standardizer, measure
from training.world.painter import paint
from training.world.scene import CONTENTS, LOOKS, SETTINGS, SIDE_PX, Scene

CHUNK = 240


class PictureStore:
    """Pictures painted once and read often.

    ``pictures`` is a read-only memory map N x 128 x 128 x 3 uint8; ``looks`` are the measured,
    standardized looks (N x 8), ``looks_set`` the ones painted with, in [-1, 1].
    """

    def __init__(self, folder: Path) -> None:
        facts = folder / "facts.npz"
        if not facts.exists():
            raise FileNotFoundError(
                f"{facts}: paint it with `python -m training.world.store --out {folder}`"
            )
        self.pictures: NDArray[np.uint8] = np.load(folder / "pictures.npy", mmap_mode="r")
        self.standardizer = Standardizer.load(folder / "standardizer.json")
        with np.load(facts) as arrays:
            self.content: NDArray[np.int64] = arrays["content"]
            self.looks_set: NDArray[np.float32] = arrays["looks_set"]
            self.statistics: NDArray[np.float32] = arrays["statistics"]
        self.looks = self.standardizer.apply(self.statistics, self.content)

    def __len__(self) -> int:
        return len(self.content)

    @property
    def subject(self) -> NDArray[np.int64]:
        """Index into ``SUBJECTS`` of every picture."""
        return self.content // len(SETTINGS)

    @property
    def setting(self) -> NDArray[np.int64]:
        """Index into ``SETTINGS`` of every picture."""
        return self.content % len(SETTINGS)

    def by_content(self, part: slice = slice(None)) -> list[NDArray[np.int64]]:
        """For each content, the indices of its pictures among ``part`` of the store."""
        indices = np.arange(len(self))[part]
        return [indices[self.content[indices] == content] for content in range(CONTENTS)]


def paint_store(folder: Path, count: int, seed: int, workers: int) -> None:
    """Paint and measure ``count`` pictures, contents in turn, looks uniform in [-1, 1]."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = np.lib.format.open_memmap(
        folder / "pictures.npy", mode="w+", dtype=np.uint8, shape=(count, SIDE_PX, SIDE_PX, 3)
    )
    statistics = np.zeros((count, len(STATISTICS)), dtype=np.float32)
    looks_set = np.zeros((count, len(LOOKS)), dtype=np.float32)
    starts = range(0, count, CHUNK)
    with ProcessPoolExecutor(workers) as pool:
        parts = pool.map(
            _paint_chunk, [(seed, start, min(start + CHUNK, count)) for start in starts]
        )
        for start, (images, looks, raw) in tqdm(
            zip(starts, parts, strict=True), total=len(starts), desc="painting", unit="chunk"
        ):
            pictures[start : start + len(images)] = images
            looks_set[start : start + len(images)] = looks
            statistics[start : start + len(images)] = raw
    pictures.flush()
    content = np.arange(count, dtype=np.int64) % CONTENTS
    Standardizer.fit(statistics, content, looks_set).save(folder / "standardizer.json")
    np.savez(folder / "facts.npz", content=content, looks_set=looks_set, statistics=statistics)


def _paint_chunk(
    task: tuple[int, int, int],
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    seed, start, stop = task
    scenes = [scene_at(seed, index) for index in range(start, stop)]
    images = np.stack([paint(scene) for scene in scenes])
    looks = np.stack([scene.looks_L for scene in scenes])
    return images, looks, np.stack([measure(image) for image in images])


def scene_at(seed: int, index: int) -> Scene:
    """The scene of picture ``index`` of the store painted from ``seed``."""
    rng = np.random.default_rng((seed, index))
    content = index % CONTENTS
    return Scene(
        subject=content // len(SETTINGS),
        setting=content % len(SETTINGS),
        looks_L=rng.uniform(-1, 1, len(LOOKS)).astype(np.float32),
        seed=int(rng.integers(2**31)),
    )


class StoreConfig(Configuration):
    """How many pictures, painted from which seed."""

    out: Out
    count: int = 30_000
    """How many pictures."""
    seed: Seed = 1
    workers: int = os.cpu_count() or 1
    """Processes that paint."""


def main(config: StoreConfig) -> None:
    if (config.out / "facts.npz").exists():
        print(f"{config.out} is painted already")
        return
    paint_store(config.out, config.count, config.seed, config.workers)


if __name__ == "__main__":
    run_job(main, StoreConfig, __doc__)
