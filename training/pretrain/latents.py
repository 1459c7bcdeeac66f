"""Latents of all painted pictures, computed once: by the compressor and by Stage A.

``python -m training.pretrain.latents --run runs/mini``
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ppd_model.nets.compressor import SmallCompressor
from ppd_model.nets.stage_a import build_stage_a
from ppd_model.presets import get_preset
from training.jobs.command_line import run_job
from training.jobs.configuration import Configuration
from training.jobs.files import replacing
from training.pretrain.pictures import to_tensor
from training.pretrain.training_loop import load_averaged
from training.world.store import PictureStore

BATCH = 100


def trained_compressor(out: Path) -> SmallCompressor:
    return load_averaged(out, "compressor", SmallCompressor(**get_preset("mini").compressor))


def trained_stage_a(out: Path) -> PaellaVQModel:
    return load_averaged(out, "stage_a", build_stage_a(get_preset("mini")))


def stage_c_latents(run: Path) -> NDArray[np.float16]:
    """N x 16 x 8 x 8 of every picture of the store, computed at the first call."""
    compressor = trained_compressor(run / "compressor")
    return _cached(run, "stage_c_latents", compressor)


def stage_a_latents(run: Path) -> NDArray[np.float16]:
    """N x 4 x 32 x 32 of every picture, over Stage A's scale factor; computed at the first call."""
    stage_a = trained_stage_a(run / "stage_a")
    scale: float = stage_a.config.scale_factor
    return _cached(run, "stage_a_latents", lambda image: stage_a.encode(image).latents / scale)


def _cached(run: Path, name: str, encode: Callable[[Tensor], Tensor]) -> NDArray[np.float16]:
    path = run / f"{name}.npy"
    if not path.exists():
        store = PictureStore(run / "world")
        parts = []
        with torch.no_grad():
            for start in tqdm(range(0, len(store), BATCH), desc=name, unit="batch"):
                image = to_tensor(store.pictures[start : start + BATCH])
                parts.append(encode(image).half().numpy())
        with replacing(path) as unfinished, unfinished.open("wb") as file:
            np.save(file, np.concatenate(parts))
    latents: NDArray[np.float16] = np.load(path)
    return latents


class LatentsConfig(Configuration):
    """Whose latents."""

    run: Path
    """Folder with all parts of the model: world, stage_a, compressor, ..."""


def main(config: LatentsConfig) -> None:
    for latents in (stage_c_latents(config.run), stage_a_latents(config.run)):
        sample = latents[:2000].astype(np.float32)
        print(f"{latents.shape}: mean {sample.mean():.3f}, std {sample.std():.3f}")


if __name__ == "__main__":
    run_job(main, LatentsConfig, __doc__)
