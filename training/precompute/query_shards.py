"""What is trained on: latents of the query pairs' pictures, text features of their captions.

Legend: N pictures, K captions, S T text features."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from ppd_model.nets.text_encoder import TextEncoder
from ppd_model.pictures.reading import PictureError, read_picture
from training.data.shards import ShardFolder
from training.data.vlm_readings import in_batches
from training.jobs.ahead import done_ahead
from training.precompute.frozen_parts import (
    Compressor,
    square,
)
from training.precompute.plan import Plan
from training.precompute.precompute_config import PrecomputeConfig
from training.precompute.processes import Worker
from training.precompute.reuse import Earlier
from training.precompute.unreadable import UNREADABLE, listed, note, refuse_too_many

IntArray = NDArray[np.int64]
AHEAD_EACH = 32
"""Pictures that each thread may have decoded before they are asked for: 1.7 MB each at 768 px."""


def write_latents(
    config: PrecomputeConfig,
    plan: Plan,
    compressor: Compressor,
    folder: ShardFolder,
    worker: Worker,
    earlier: Earlier | None = None,
) -> None:
    """latents-*.safetensors: latent_NCHW in float16, in the order of plan.query.

    A picture that cannot be read keeps its place, with a latent of NaN, and stands in
    unreadable-*.json. Raises ValueError when they are more than the configuration allows.
    """
    size, total = config.pictures_per_shard, len(plan.query)
    blank = np.zeros((compressor.side_px, compressor.side_px, 3), np.uint8)
    for name, part in worker.missing(folder, "latents", total, size):
        number_N = plan.query.picture_N[part].tolist()
        known = [None if earlier is None else earlier.latent(number) for number in number_N]
        fresh = [place for place, latent_CHW in enumerate(known) if latent_CHW is None]
        source_N2 = plan.query.source_N2[part][fresh]
        pictures = decoded(plan, source_N2, compressor.side_px, config.decode_workers)
        unread, made = [], iter(fresh)
        for batch in in_batches(zip(source_N2, pictures, strict=True), config.picture_batch):
            # Who cannot be read leaves the others in the batch that they would have been in.
            shown = [blank if isinstance(seen, PictureError) else seen for _, seen in batch]
            latent_BCHW = compressor.latents(np.stack(shown), worker.device)
            for latent_CHW, ((row, side), seen) in zip(latent_BCHW, batch, strict=True):
                place = next(made)
                known[place] = latent_CHW
                if isinstance(seen, PictureError):
                    known[place] = torch.full_like(latent_CHW, torch.nan)
                    unread.append(note(plan, int(row), int(side), seen))
        uids = [plan.preferences.pictures[number] for number in number_N]
        folder.write_json(beside(name, "latents", "pictures"), uids)
        folder.write_json(beside(name, "latents-", UNREADABLE), unread)
        folder.write(
            name, {"latent_NCHW": torch.stack([each for each in known if each is not None])}
        )
        refuse_too_many(listed(folder.folder), total, config.unreadable_share)


def decoded(
    plan: Plan, source_N2: IntArray, side_px: int, workers: int = 1
) -> Iterator[NDArray[np.uint8] | PictureError]:
    """The pictures, square, or why there is none; `workers` threads decode ahead."""

    def decode(data: bytes | PictureError) -> NDArray[np.uint8] | PictureError:
        try:
            return square(read_picture(data), side_px)
        except PictureError as error:
            return error

    ahead = AHEAD_EACH * workers
    return done_ahead(decode, plan.files.pictures(source_N2), workers=workers, ahead=ahead)


def beside(name: str, kind: str, other: str) -> str:
    """The name of a json file of another kind with a shard's number."""
    return name.replace(kind, other).replace(".safetensors", ".json")


@torch.inference_mode()
def write_captions(
    config: PrecomputeConfig,
    plan: Plan,
    text: TextEncoder,
    folder: ShardFolder,
    worker: Worker,
    earlier: Earlier | None = None,
) -> None:
    """captions-*.safetensors: text_KST and pooled_K1T in float16; texts-*.json: the captions."""
    size = config.captions_per_shard
    for name, part in worker.missing(folder, "captions", len(plan.captions), size):
        texts = plan.captions[part]
        known = {each: None if earlier is None else earlier.features(each) for each in texts}
        fresh = [each for each, features in known.items() if features is None]
        for batch in in_batches(fresh, config.caption_batch):
            found = text.encode(batch)
            features = zip(
                found.tokens_BSD.half().cpu(), found.pooled_B1D.half().cpu(), strict=True
            )
            known |= dict(zip(batch, features, strict=True))
        kept = [features for features in known.values() if features is not None]
        folder.write_json(beside(name, "captions", "texts"), texts)
        folder.write(
            name,
            {
                "text_KST": torch.stack([text_ST for text_ST, _ in kept]),
                "pooled_K1T": torch.stack([pooled_1T for _, pooled_1T in kept]),
            },
        )
