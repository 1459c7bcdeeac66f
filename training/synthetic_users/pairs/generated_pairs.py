"""Pairs of the base model's own pictures, as Pick-a-Pic's pairs are pictures that models made.

A pair is two seeds of one caption; nobody has labelled it, and train_dpo cannot read the folder:
relabelling gives it its labels. Captions are the world's, those that are held out from training
left out. How much such pairs can teach of a reward depends on how well the model is sampled:
guided, mini shows what it is asked nearly always, and pairs hardly differ in alignment (relabelling
writes each reward's standard deviation into summary.json).

Files: latents-*, images-*, captions-*, texts-* and unlabelled-*, numbered alike.

Legend: P pairs, N pictures, K captions, C H W latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppd_model.pipeline import Pipeline
from training.data.shards import ShardFolder
from training.data.splits import SPLITS, SplitRule, side_of
from training.jobs.picture_batches import picture_requests
from training.jobs.shared_options import (
    Device,
    ModelJob,
    SamplingOptions,
    SamplingSteps,
    Threads,
)
from training.precompute.query_shards import beside
from training.synthetic_users.pairs.pair_folder import RELABELLED, UNLABELLED
from training.world import captions
from training.world.scene import CONTENTS, SETTINGS


class GeneratedPairsConfig(ModelJob, SamplingOptions):
    """How many pairs, of which model.

    The shares tell which captions may be used, and must be those of the data set that is trained on
    with them (splits.py).
    """

    device: Device = "cpu"
    pairs: int
    """How many pairs."""
    pairs_per_shard: int = 256
    """Pairs in one file."""
    validation_caption_share: float
    """Share of captions that validate."""
    held_out_caption_share: float
    """Share of captions that the two tests hold out."""
    salt: str = "ppd"
    """Of the splits."""
    steps: SamplingSteps = 20
    threads: Threads = 2


def generate_pairs(config: GeneratedPairsConfig, resume: bool = False) -> Path:
    """Paint all pairs; returns the folder. An interrupted run goes on with `resume`.

    Raises ValueError for a folder that holds other pairs.
    """
    torch.set_num_threads(config.threads)
    pipeline = Pipeline.load(config.preset, config.weights_dir, config.device, with_adapter=False)
    asked = draw_captions(config)
    folder = ShardFolder(config.out, provenance(config, pipeline), resume)
    for name, part in folder.missing("unlabelled", len(asked), config.pairs_per_shard):
        own, first = asked[part], part.start
        prompts = [caption for caption, _ in own for _ in range(2)]
        latents, images = paint(pipeline, prompts, first_seed(config, first), config)
        features = pipeline.text_encoder.encode([caption for caption, _ in own])
        folder.write(name.replace(UNLABELLED, "latents-"), {"latent_NCHW": latents.half()})
        folder.write(name.replace(UNLABELLED, "images-"), {"image_NHW3": images})
        folder.write_json(beside(name, "unlabelled", "texts"), [caption for caption, _ in own])
        folder.write(
            name.replace(UNLABELLED, "captions-"),
            {
                "text_KST": features.tokens_BSD.half().cpu(),
                "pooled_K1T": features.pooled_B1D.half().cpu(),
            },
        )
        place_P = torch.arange(first, first + len(own))
        folder.write(
            name,
            {
                "first_P": 2 * place_P,
                "second_P": 2 * place_P + 1,
                "caption_P": place_P,
                "split_P": torch.tensor([split for _, split in own]),
            },
        )
    folder.finish()
    print(f"complete: {config.out}")
    return config.out


def draw_captions(config: GeneratedPairsConfig) -> list[tuple[str, int]]:
    """A caption for each pair, contents in turn, with its split as a number of SPLITS."""
    rule = SplitRule(
        validation_caption_share=config.validation_caption_share,
        held_out_caption_share=config.held_out_caption_share,
        salt=config.salt,
    )
    rng = np.random.default_rng([config.seed, 31])
    drawn: list[tuple[str, int]] = []
    while len(drawn) < config.pairs:
        caption = captions.caption(*divmod(len(drawn) % CONTENTS, len(SETTINGS)), rng)
        side = side_of(caption, rule)
        if side in RELABELLED:
            drawn.append((caption, SPLITS.index(side)))
    return drawn


def first_seed(config: GeneratedPairsConfig, pair: int) -> int:
    """The seed of a pair's first picture; the second's is the next. Far from those of tests."""
    return 2_000_000_000 + config.seed * 50_000_000 + 2 * pair


def provenance(config: GeneratedPairsConfig, pipeline: Pipeline) -> dict[str, Any]:
    free = {"weights_dir", "device", "out", "batch", "threads"}
    return {
        "generated": config.model_dump(mode="json", exclude=free),
        "model": pipeline.model_id,
        "encoder_id": "none",
    }


def paint(
    pipeline: Pipeline, prompts: Sequence[str], seed: int, config: GeneratedPairsConfig
) -> tuple[Tensor, Tensor]:
    """Latents N x C x H x W and uint8 pictures N x H x W x 3, seeds counting up from `seed`."""
    seeds = range(seed, seed + len(prompts))
    requests = picture_requests(config, prompts, seeds, [None] * len(prompts))
    latents, images = [], []
    for first in range(0, len(requests), config.batch):
        part = requests[first : first + config.batch]
        generators = [torch.Generator().manual_seed(request.seed) for request in part]
        latent_BCHW = pipeline.sample_latents(part, generators)
        images.append(torch.from_numpy(pipeline.decode(part, latent_BCHW, generators)))
        latents.append(latent_BCHW.float().cpu())
    return torch.cat(latents), torch.cat(images)
