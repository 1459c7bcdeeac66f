"""Latents a second: pictures decoded ahead by threads, against decoding between batches.

    python -m benchmarks.latents [--pictures 256] [--side 1024] [--workers 1] [--batch 16]
        [--rounds 3] [--threads 1] [--out FILE]

Pictures are JPEGs of that side with the detail of photographs, the compressor is mini's at the side
that its pictures have. `--work` reads every batch so often, until the compressor takes about as
long as decoding: then there is most to overlap. Both sides alternate; wall seconds, so that a busy
machine matters: what else runs is part of the result, and the ratio alone is worth a look.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.rounds import report_of, show, spread
from ppd_model.pictures.reading import read_picture
from ppd_model.pipeline import MINI_WEIGHTS_DIR
from ppd_model.presets import get_preset
from training.data.vlm_readings import in_batches
from training.jobs.ahead import done_ahead
from training.precompute.frozen_parts import Compressor, load_compressor, square
from training.precompute.query_shards import AHEAD_EACH

CPU = torch.device("cpu")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name, default in (("pictures", 256), ("side", 1024), ("workers", 1), ("batch", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    compressor = load_compressor(get_preset("mini"), MINI_WEIGHTS_DIR, CPU)
    jpegs = [jpeg_of(seed % 16, args.side) for seed in range(args.pictures)]
    taken: dict[str, list[float]] = {"between": [], "ahead": []}
    sums = []
    for number in range(args.rounds):
        for name in ("between", "ahead") if number % 2 == 0 else ("ahead", "between"):
            started_s = time.perf_counter()
            pictures = decoded(jpegs, compressor.side_px, args.workers if name == "ahead" else 0)
            sums.append(compress(compressor, pictures, args.batch, args.work))
            taken[name].append(time.perf_counter() - started_s)
    assert len(set(sums)) == 1, "both sides must make the same latents"
    rows = {name: spread([args.pictures / each for each in times]) for name, times in taken.items()}
    ratios = [old / new for old, new in zip(taken["between"], taken["ahead"], strict=True)]
    show(
        report_of(vars(args) | {"out": None}, {"latents/s": rows, "ratio": spread(ratios)}),
        args.out,
    )


def decoded(jpegs: Sequence[bytes], side_px: int, workers: int) -> Iterator[np.ndarray]:
    """As precompute does; without workers, as it did."""

    def decode(jpeg: bytes) -> np.ndarray:
        return square(read_picture(jpeg), side_px)

    if not workers:
        return map(decode, jpegs)
    return done_ahead(decode, jpegs, workers=workers, ahead=AHEAD_EACH * workers)


def compress(
    compressor: Compressor, pictures: Iterator[np.ndarray], batch: int, work: int
) -> float:
    """The sum of all latents: what both sides must agree on."""
    total = 0.0
    for part in in_batches(pictures, batch):
        for _ in range(work):
            latent_BCHW = compressor.latents(np.stack(part), CPU)
        total += float(latent_BCHW.double().sum())
    return total


def jpeg_of(seed: int, side_px: int) -> bytes:
    """Noise of many scales, as files of photographs are large."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 255, (cells, cells, 3), dtype=np.uint8)).resize(
                (side_px, side_px), Image.Resampling.BICUBIC
            ),
            dtype=np.float32,
        )
        for cells in (8, 64, side_px // 2)
    ]
    buffer = io.BytesIO()
    mixed = (0.5 * layers[0] + 0.3 * layers[1] + 0.2 * layers[2]).clip(0, 255).astype(np.uint8)
    Image.fromarray(mixed).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
