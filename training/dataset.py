"""What precompute.py wrote, in memory, as batches of preference pairs.

Nothing here is random on its own: which rows make a batch is a pure function of (seed, step), so a
resumed run sees what an uninterrupted one would have seen.

Legend: N pictures, P query pairs, U people, E embeddings (support sets), K captions, B pairs of a
batch, D embedding, S text tokens, T text width, L looks, C H W latent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from training.shards import read_manifest, verified

UserFeatures = Literal["vlm", "taste", "posterior"]
"""What stands for the person: the VLM's embedding; the true taste (the upper bound); or the best
estimate of the taste from the same four answers (the bound for any reader of those answers)."""


@dataclass(frozen=True)
class PairBatch:
    """B preference pairs. A row's chosen and rejected picture show the same caption's content."""

    chosen_BCHW: Tensor
    rejected_BCHW: Tensor
    text_BST: Tensor
    pooled_B1T: Tensor
    user_emb_BD: Tensor

    def to(self, device: torch.device) -> PairBatch:
        """The same batch on another device."""
        return PairBatch(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True)
class PreferencePairs:
    """All precomputed pairs. `person_P` and `person_E` number the people 0..U-1."""

    latent_NCHW: Tensor
    text_KST: Tensor
    pooled_K1T: Tensor
    user_emb_ED: Tensor
    first_embedding_U: Tensor
    embeddings_U: Tensor
    person_P: Tensor
    chosen_P: Tensor
    rejected_P: Tensor
    caption_P: Tensor
    provenance: dict[str, Any]

    def __len__(self) -> int:
        return len(self.person_P)

    @property
    def people(self) -> int:
        """How many people answered."""
        return len(self.embeddings_U)

    def rows_of(self, people: range) -> Tensor:
        """Row numbers of the pairs that these people answered."""
        inside = (self.person_P >= people.start) & (self.person_P < people.stop)
        return torch.nonzero(inside).flatten()

    def batch(self, rows_B: Tensor, draw_B: Tensor) -> PairBatch:
        """The pairs of these rows.

        draw_B: numbers in [0, 1) that choose, for each row, one of its person's embeddings: a
        person who answered several support sets is met under each of them.
        """
        person_B = self.person_P[rows_B]
        count_B = self.embeddings_U[person_B]
        which_B = (draw_B * count_B).long().clamp(max=count_B - 1)
        caption_B = self.caption_P[rows_B]
        return PairBatch(
            chosen_BCHW=self.latent_NCHW[self.chosen_P[rows_B]].float(),
            rejected_BCHW=self.latent_NCHW[self.rejected_P[rows_B]].float(),
            text_BST=self.text_KST[caption_B].float(),
            pooled_B1T=self.pooled_K1T[caption_B].float(),
            user_emb_BD=self.user_emb_ED[self.first_embedding_U[person_B] + which_B],
        )


def load_pairs(folder: Path, user: UserFeatures, user_emb_dim: int) -> PreferencePairs:
    """Read every shard of `folder`, checking each file's sha256 against the manifest.

    "taste" and "posterior" are padded with zeros to `user_emb_dim`. Raises ValueError when a shard
    is missing or changed, when precompute had not finished, or when it ran without the VLM and
    "vlm" is asked for.
    """
    manifest = read_manifest(folder)
    if not manifest["complete"]:
        raise ValueError(f"{folder}: precompute has not finished; run it again with --resume")
    latents, embeddings, parts = [], [], []
    for path in verified(folder, manifest, "latents-"):
        latents.append(load_file(path)["latent_NCHW"])
    captions = load_file(verified(folder, manifest, "captions")[0])
    counts: list[Tensor] = []
    people = 0
    for path in verified(folder, manifest, "people-"):
        shard = load_file(path)
        person_P = shard["person_P"] + people
        parts.append(
            {
                "person": person_P,
                **{key: shard[f"{key}_P"] for key in ("chosen", "rejected", "caption")},
            }
        )
        counts.append(torch.bincount(shard["person_E"], minlength=len(shard["taste_UL"])))
        embeddings.append(_features(shard, user, folder))
        people += len(shard["taste_UL"])
    embeddings_U = torch.cat(counts)
    user_emb_ED = pad_features(torch.cat(embeddings).float(), user_emb_dim)
    return PreferencePairs(
        latent_NCHW=torch.cat(latents),
        text_KST=captions["text_KST"],
        pooled_K1T=captions["pooled_K1T"],
        user_emb_ED=user_emb_ED,
        first_embedding_U=embeddings_U.cumsum(0) - embeddings_U,
        embeddings_U=embeddings_U,
        person_P=torch.cat([part["person"] for part in parts]),
        chosen_P=torch.cat([part["chosen"] for part in parts]),
        rejected_P=torch.cat([part["rejected"] for part in parts]),
        caption_P=torch.cat([part["caption"] for part in parts]),
        provenance=json.loads(json.dumps(manifest["provenance"])),
    )


def pad_features(feature_BL: Tensor, user_emb_dim: int) -> Tensor:
    """Features narrower than the embedding, followed by zeros up to its width.

    Raises ValueError when they are wider.
    """
    width = feature_BL.shape[1]
    if width > user_emb_dim:
        raise ValueError(f"features are {width} wide, the adapter reads {user_emb_dim}")
    return torch.nn.functional.pad(feature_BL, (0, user_emb_dim - width))


def batch_rows(rows_R: Tensor, batch: int, step: int, seed: int) -> Tensor:
    """The rows of one step: epochs without replacement, each in its own seeded order.

    Raises ValueError when there are fewer rows than a batch.
    """
    per_epoch = len(rows_R) // batch
    if per_epoch == 0:
        raise ValueError(f"{len(rows_R)} pairs do not fill one batch of {batch}")
    epoch, index = divmod(step, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(len(rows_R))
    return rows_R[torch.from_numpy(order[index * batch : (index + 1) * batch])]


def _features(shard: dict[str, Tensor], user: UserFeatures, folder: Path) -> Tensor:
    if user == "taste":
        return shard["taste_UL"][shard["person_E"]]
    if user == "posterior":
        return shard["posterior_EL"]
    if "user_emb_ED" not in shard:
        raise ValueError(f"{folder} was precomputed without the VLM; it has no user embeddings")
    return shard["user_emb_ED"]
