"""Folders of precomputed pairs, as relabelling reads and writes them.

A relabelled folder is what training.precompute writes, with one person for each reward: latents
and text features are the sources' own files, linked; people-00000.safetensors is new. So train_dpo
reads it like any other, with `user: one_hot`.

Sources are folders of training.precompute, whose labels are forgotten, or of generated_pairs.py,
which have none.

Legend: N pictures, K captions, P pairs of the sources, X pictures shown with a caption, A rewards.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ppd_model.files.artifact import sha256_of
from training.data.shards import (
    MANIFEST,
    ShardedRows,
    read_lists,
    read_manifest,
    read_shards,
    verified,
)
from training.data.splits import SPLITS, Split
from training.jobs.files import write_json
from training.synthetic_users.pairs.relabel import Answers

LABELLED, UNLABELLED = "people-", "unlabelled-"
PEOPLE = f"{LABELLED}00000.safetensors"
SHARED = ("latents-", "captions-", "texts-")
"""Files that a relabelled folder has in common with its sources; they are numbered anew."""

RELABELLED: tuple[Split, ...] = ("train", "validation")
"""Tests have captions of their own; nothing is learned from their pairs."""


@dataclass(frozen=True)
class SourcePairs:
    """Pairs to train and to validate on, of one folder.

    picture_P2 are places among its latents, caption_P counts into `captions`, split_P into SPLITS.
    """

    folder: Path
    picture_P2: Tensor
    caption_P: Tensor
    split_P: Tensor
    captions: list[str]
    pictures: int
    provenance: dict[str, Any]

    def __len__(self) -> int:
        return len(self.picture_P2)

    def shown(self) -> tuple[Tensor, Tensor]:
        """What has to be scored: pictures with the captions they are shown with, each once.

        Returns shown_X2 (place among the latents, caption) in the order of the pictures, and the
        rows in it of each pair's two pictures, P x 2.
        """
        captions = len(self.captions)
        code_P2 = self.picture_P2 * captions + self.caption_P[:, None]
        code_X, row_P2 = torch.unique(code_P2, return_inverse=True)
        return torch.stack([code_X // captions, code_X % captions], dim=1), row_P2


def read_source(folder: Path) -> SourcePairs:
    """A finished folder; files are checked against the manifest.

    A pair that several people answered counts once for each, as it would in training. Raises
    ValueError for a folder that is not finished, lacks splits, or has no pair to train on.
    """
    manifest = read_manifest(folder, finished=True)
    kind = UNLABELLED if any(name.startswith(UNLABELLED) for name in manifest["shards"]) else None
    shards = read_shards(folder, kind or LABELLED)
    if any("split_P" not in shard for shard in shards):
        raise ValueError(f"{folder} was precomputed without splits; run training.precompute")
    first, second = ("first_P", "second_P") if kind else ("chosen_P", "rejected_P")
    split_P = torch.cat([shard["split_P"] for shard in shards])
    wanted = torch.tensor([SPLITS.index(split) for split in RELABELLED])
    rows_R = torch.nonzero(torch.isin(split_P, wanted)).flatten()
    if not bool((split_P[rows_R] == SPLITS.index("train")).any()):
        raise ValueError(f"{folder} holds no pair to train on")
    picture_P2 = torch.cat([torch.stack([shard[first], shard[second]], 1) for shard in shards])
    return SourcePairs(
        folder=folder,
        # In the order of their places, so that nothing of the labels is left.
        picture_P2=picture_P2[rows_R].sort(dim=1).values,
        caption_P=torch.cat([shard["caption_P"] for shard in shards])[rows_R],
        split_P=split_P[rows_R],
        captions=read_lists(folder, "texts-"),
        pictures=len(ShardedRows(verified(folder, "latents-"), "latent_NCHW")),
        provenance=manifest["provenance"],
    )


def people_tensors(
    sources: Sequence[SourcePairs], answers: Answers, users: int
) -> dict[str, Tensor]:
    """The people shard: one person, and one row of features, for each reward.

    `answers` counts pairs over all sources in turn.
    """
    first_picture, first_caption = 0, 0
    pictures, captions = [], []
    for source in sources:
        pictures.append(source.picture_P2 + first_picture)
        captions.append(source.caption_P + first_caption)
        first_picture += source.pictures
        first_caption += len(source.captions)
    pair_R = torch.from_numpy(answers.pair_R)
    preferred_R1 = torch.from_numpy(answers.preferred_R)[:, None]
    picture_R2 = torch.cat(pictures)[pair_R]
    return {
        "person_E": torch.arange(users),
        # How much each reward counts for each person.
        "taste_UL": torch.eye(users),
        "person_P": torch.from_numpy(answers.user_R),
        "split_P": torch.cat([source.split_P for source in sources])[pair_R],
        "chosen_P": picture_R2.gather(1, preferred_R1)[:, 0],
        "rejected_P": picture_R2.gather(1, 1 - preferred_R1)[:, 0],
        "caption_P": torch.cat(captions)[pair_R],
    }


def write_folder(
    out: Path,
    sources: Sequence[SourcePairs],
    people: dict[str, Tensor],
    provenance: dict[str, Any],
) -> None:
    """Link what is shared, write the people and, last, the manifest.

    Files are linked where the file system can, else copied. Raises ValueError for a folder that
    holds shards already.
    """
    if (out / MANIFEST).exists():
        raise ValueError(f"{out} already holds shards; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    digests: dict[str, str] = {}
    for prefix in SHARED:
        number = 0
        for source in sources:
            shards = read_manifest(source.folder)["shards"]
            for name in sorted(name for name in shards if name.startswith(prefix)):
                new = f"{prefix}{number:05d}{Path(name).suffix}"
                _link(source.folder / name, out / new)
                digests[new] = shards[name]
                number += 1
    save_file({key: value.contiguous() for key, value in people.items()}, out / PEOPLE)
    digests[PEOPLE] = sha256_of(out / PEOPLE)
    manifest = {"provenance": provenance, "complete": True, "shards": dict(sorted(digests.items()))}
    write_json(out / MANIFEST, manifest)


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
