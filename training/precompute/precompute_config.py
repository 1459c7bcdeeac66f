"""Every option of training.precompute."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from training.data.layouts.catalog import LayoutName
from training.data.splits import SplitRule
from training.jobs.shared_options import (
    EncodeBatch,
    ModelName,
    Out,
    PopulationSamples,
    Seed,
    WeightsDir,
)
from training.world import tastes

FloatArray = NDArray[np.float32]


class PrecomputeConfig(SplitRule):
    """One data set; the shares of its splits are SplitRule's."""

    preset: ModelName
    data: str | tuple[str, ...]
    """Files, folders of them, or glob patterns; parquet files but for another layout."""
    layout: LayoutName = "pickapic"
    """How they are laid out (docs/other_data.md): pickapic, pamela (ratings, made into pairs),
    learn_user_pref (pickles, of which nothing is run), or rankings (this project's own .jsonl)."""
    validation_data: str | tuple[str, ...] | None = None
    """Files whose captions validate, such as Pick-a-Pic's validation_unique, and are not trained
    on where `data` has them, too; null: a share of the captions of `data`."""
    truth: Path | None = None
    """The world's ground truth: with it the bounds "taste" and "posterior" can be trained."""
    weights_dir: WeightsDir = None
    output_dir: Out
    reuse: Path | None = None
    """An earlier folder, finished or not, over files of which some were replaced or added: what it
    holds of unchanged files is copied, what could not be read is tried again."""
    seed: Seed = 0
    people: PositiveInt | None = None
    """Keep only so many people; null: all."""
    support_sets: NonNegativeInt = 4
    """Sets of four pairs that each person is read from, at most; 0: nobody is read."""
    vlm: bool = True
    """Whether the VLM reads people at all."""
    reads_only: bool = False
    """Read the people with most pairs, from any four of them, and make nothing to train on: for
    training.classify_users (Figure 2). `people` says how many."""
    prompt_variant: str = "paper"
    """Which wording of the chain of thought the VLM reads."""
    decoding: str = "greedy"
    """How the VLM decodes: greedy or sample."""
    generation: Literal["running", "together"] = "running"
    """running: a set whose profile is written makes room for the next, and is read once, up to
    three times as fast; together: batches are read to their end, and then again, as serving reads
    one person and as mini's published adapter was trained. The same but for rounding."""
    population_samples: PopulationSamples = 20_000
    pictures_per_shard: int = 8192
    """Pictures in one file of latents."""
    captions_per_shard: int = 1024
    """Captions in one file."""
    people_per_shard: int = 64
    """People in one file."""
    picture_batch: int = 64
    """Pictures that the compressor reads at a time."""
    caption_batch: int = 64
    """Captions that the text encoder reads at a time."""
    encode_batch: EncodeBatch = 32
    decode_workers: PositiveInt = 4
    """Threads of each process that decode pictures while the compressor works."""
    unreadable_share: float = Field(0.01, ge=0, le=1)
    """Share of pictures that may be unreadable: they are named (file, row, person) and left out,
    with the pairs and sets that show them. Beyond it the job ends."""

    @model_validator(mode="after")
    def _reads_somebody(self) -> Self:
        """Raises ValueError where nothing would come out."""
        if self.reads_only and not self.vlm:
            raise ValueError("reads_only without vlm: nothing would be made")
        return self

    def unread(self) -> Set[str]:
        """How the VLM reads, without it; what answers are weighed against, without the truth."""
        of_vlm = {"prompt_variant", "decoding", "encode_batch", "generation"}
        of_vlm = set() if self.vlm else of_vlm
        of_truth = set() if self.truth is not None else {"population_samples"}
        of_share = set() if self.validation_data is None else {"validation_caption_share"}
        return super().unread() | of_vlm | of_truth | of_share


def places_of(given: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """One place or several; none for None."""
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else given


PLACES = {
    "data",
    "validation_data",
    "truth",
    "weights_dir",
    "output_dir",
    "reuse",
    "picture_batch",
    "caption_batch",
    "encode_batch",
    "decode_workers",
    "unreadable_share",
}
"""Keys that say where things are and how they are computed, not what comes out."""


def prior_samples(config: PrecomputeConfig) -> FloatArray:
    """Tastes of the world's population, against which four answers are weighed."""
    rng = np.random.default_rng([config.seed, 3])
    return tastes.Population().sample(config.population_samples, rng).astype(np.float32)
