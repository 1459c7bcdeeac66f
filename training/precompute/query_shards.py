"""What is trained on: latents of the query pairs' pictures, text features of their captions.

Legend: N pictures, K captions, S T text features."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from ppd_model.nets.text_encoder import TextEncoder
from ppd_model.pictures.reading import read_picture
from training.data.shards import ShardFolder
from training.data.vlm_readings import in_batches
from training.precompute.frozen_parts import (
    Compressor,
    square,
)
from training.precompute.plan import Plan
from training.precompute.precompute_config import PrecomputeConfig
from training.precompute.processes import Worker

IntArray = NDArray[np.int64]


def write_latents(
    config: PrecomputeConfig,
    plan: Plan,
    compressor: Compressor,
    folder: ShardFolder,
    worker: Worker,
) -> None:
    """latents-*.safetensors: latent_NCHW in float16, in the order of plan.query."""
    size = config.pictures_per_shard
    for name, part in worker.missing(folder, "latents", len(plan.query), size):
        images = decoded(plan, plan.query.source_N2[part], compressor.side_px)
        latents = [
            compressor.latents(np.stack(batch), worker.device)
            for batch in in_batches(images, config.picture_batch)
        ]
        uids = [plan.preferences.pictures[number] for number in plan.query.picture_N[part]]
        folder.write_json(beside(name, "latents", "pictures"), uids)
        folder.write(name, {"latent_NCHW": torch.cat(latents)})


def decoded(plan: Plan, source_N2: IntArray, side_px: int) -> Iterator[NDArray[np.uint8]]:
    """The pictures, square. Raises ValueError, naming file and row, for one that is broken."""
    jpegs = plan.files.pictures(source_N2)
    for (row, side), jpeg in zip(source_N2.tolist(), jpegs, strict=True):
        try:
            yield square(read_picture(jpeg), side_px)
        except ValueError as error:
            raise ValueError(f"{plan.files.place_of(row)}, jpg_{side}: {error}") from error


def beside(name: str, kind: str, other: str) -> str:
    """The name of a json file of another kind with a shard's number."""
    return name.replace(kind, other).replace(".safetensors", ".json")


@torch.inference_mode()
def write_captions(
    config: PrecomputeConfig, plan: Plan, text: TextEncoder, folder: ShardFolder, worker: Worker
) -> None:
    """captions-*.safetensors: text_KST and pooled_K1T in float16; texts-*.json: the captions."""
    size = config.captions_per_shard
    for name, part in worker.missing(folder, "captions", len(plan.captions), size):
        texts = plan.captions[part]
        features = [text.encode(batch) for batch in in_batches(texts, config.caption_batch)]
        folder.write_json(beside(name, "captions", "texts"), texts)
        folder.write(
            name,
            {
                "text_KST": torch.cat([each.tokens_BSD.half().cpu() for each in features]),
                "pooled_K1T": torch.cat([each.pooled_B1D.half().cpu() for each in features]),
            },
        )
