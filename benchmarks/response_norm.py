"""Serving `mini` with diffusers' response norm and with this project's, in alternation.

    python benchmarks/response_norm.py [--rows 1] [--rounds 15] [--threads 1] [--out FILE.json]

Times one guided step of Stage C (twice the rows in one pass), one step of Stage B, and the whole
making of a picture in 20 steps, each with both variants in one process on the shipped weights.
Prints medians and spread of the seconds, the ratio, and how far the pictures' bytes are apart. On a
machine that is busy with other work only the processor's seconds mean something.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.unet_stable_cascade import GlobalResponseNorm

from ppd_model.pipeline import Pipeline
from ppd_model.types import ImageRequest
from training.jobs.configuration import git_commit


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    report = compare(given.rows, given.rounds) | {
        "threads": given.threads,
        "torch": str(torch.__version__),
        "machine": platform.processor() or platform.machine(),
        "commit": git_commit(),
    }
    text = json.dumps(report, indent=2)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n")


@torch.no_grad()
def compare(rows: int, rounds: int) -> dict[str, Any]:
    """Both variants of everything, after one round that is not counted."""
    pipelines = {"stock": stock_pipeline(), "fast": Pipeline.load("mini")}
    requests = personal_requests(pipelines["fast"], rows)
    work: dict[str, Callable[[Pipeline], Callable[[], Any]]] = {
        "stage_c_step": lambda pipeline: stage_c_step(pipeline, requests),
        "stage_b_step": lambda pipeline: stage_b_step(pipeline, rows),
        "picture": lambda pipeline: lambda: pipeline.generate(requests),
    }
    stock, fast = (pipelines[name].generate(requests) for name in ("stock", "fast"))
    apart = [
        np.abs(one.image_HWC.astype(int) - other.image_HWC.astype(int))
        for one, other in zip(stock, fast, strict=True)
    ]
    return {
        "rows": rows,
        "rounds": rounds,
        **{
            what: alternate({name: prepare(p) for name, p in pipelines.items()}, rounds)
            for what, prepare in work.items()
        },
        "bytes_apart": {"most": int(np.max(apart)), "share": float(np.mean(np.array(apart) > 0))},
    }


def stock_pipeline() -> Pipeline:
    """The shipped pipeline with diffusers' modules put back."""
    pipeline = Pipeline.load("mini")
    for part in (pipeline.stage_c.unet, pipeline.decoder.stage_b):
        for module in part.modules():
            if isinstance(module, GlobalResponseNorm):
                module.__class__ = GlobalResponseNorm
    return pipeline


def personal_requests(pipeline: Pipeline, rows: int) -> list[ImageRequest]:
    """Guided, with a user whose values change no timing."""
    user_emb_D = np.random.default_rng(0).normal(size=pipeline.preset.user_emb_dim)
    return [
        ImageRequest("a boat at the sea", seed, user_emb_D=user_emb_D.astype(np.float32))
        for seed in range(rows)
    ]


def stage_c_step(pipeline: Pipeline, requests: Sequence[ImageRequest]) -> Callable[[], Any]:
    """One pass over the requests' rows and their negative rows."""
    rows = 2 * len(requests)
    text = pipeline.text_encoder.encode([request.prompt for request in requests] * 2)
    users_BD = torch.stack([torch.from_numpy(request.user_emb_D) for request in requests] * 2)
    attended = pipeline.stage_c.attend(text.tokens_BSD, text.pooled_B1D, users_BD, precompute=True)
    x_BCHW, t_B = torch.randn(rows, *latent_shape(pipeline)), torch.full((rows,), 0.5)
    return lambda: pipeline.stage_c.predict_noise(x_BCHW, t_B, attended)


def stage_b_step(pipeline: Pipeline, rows: int) -> Callable[[], Any]:
    """One pass of Stage B."""
    decoder = pipeline.decoder
    latent_BCHW = torch.randn(rows, *latent_shape(pipeline))
    channels = pipeline.preset.stage_b["in_channels"]
    x_BCHW = torch.randn(rows, channels, *decoder.stage_a_hw(latent_BCHW))
    pooled_B1D = torch.zeros(rows, 1, pipeline.preset.stage_b["clip_text_pooled_in_channels"])
    return lambda: decoder.stage_b(
        sample=x_BCHW,
        timestep_ratio=torch.full((rows,), 0.5),
        clip_text_pooled=pooled_B1D,
        effnet=latent_BCHW,
    )


def latent_shape(pipeline: Pipeline) -> tuple[int, int, int]:
    """C x H x W of Stage C's latents."""
    side_px = pipeline.preset.default_side_px
    return (pipeline.preset.latent_channels, *pipeline.preset.latent_hw(side_px, side_px))


def alternate(variants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Any]:
    """Seconds of each, by the wall and by the processor, and the first over the second by round."""
    wall_s: dict[str, list[float]] = {name: [] for name in variants}
    cpu_s: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, run in variants.items():
            started_s, started_cpu_s = time.perf_counter(), time.process_time()
            run()
            if turn:
                cpu_s[name].append(time.process_time() - started_cpu_s)
                wall_s[name].append(time.perf_counter() - started_s)
    return {
        "wall_s": {name: spread(values) for name, values in wall_s.items()},
        "cpu_s": {name: spread(values) for name, values in cpu_s.items()},
        "ratio": {"wall": ratio(wall_s), "cpu": ratio(cpu_s)},
    }


def ratio(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Stock over fast, of each round."""
    return spread([a / b for a, b in zip(seconds["stock"], seconds["fast"], strict=True)])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


if __name__ == "__main__":
    main()
