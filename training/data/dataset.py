"""What training.precompute wrote, as batches of preference pairs.

Nothing here is random on its own: which rows make a batch is a pure function of (seed, step), so a
resumed run sees what an uninterrupted one would have seen.

Legend: N pictures, P query pairs, U people, E embeddings (support sets), K captions, B pairs of a
batch, D embedding, S text tokens, T text width, L looks, C H W latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from training.data.shards import ShardedRows, read_lists, read_manifest, read_shards, verified
from training.data.splits import SPLITS, Split

UserFeatures = Literal["vlm", "taste", "posterior", "none", "one_hot", "learned", "given"]
"""What stands for the person: the VLM's embedding; the true taste (the upper bound); the best
estimate of the taste from the same four answers (the bound for any reader of those answers);
nothing, which is Diffusion-DPO; the person's place in the folder as a one-hot vector, for
synthetic users (paper, 5.1); a vector that is learned with the adapter
(training/dpo/learned_people.py); or what training.rivals puts in their place. The two bounds need a
folder precomputed with the ground truth."""

TRAINING: tuple[Split, ...] = ("train", "validation")


@dataclass(frozen=True)
class PairBatch:
    """B preference pairs. A row's chosen and rejected picture show the same caption's content."""

    chosen_BCHW: Tensor
    rejected_BCHW: Tensor
    text_BST: Tensor
    pooled_B1T: Tensor
    user_emb_BD: Tensor

    def rows(self, pairs_K: Tensor) -> PairBatch:
        return PairBatch(**{name: value[pairs_K] for name, value in vars(self).items()})

    def to(self, device: torch.device) -> PairBatch:
        return PairBatch(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True)
class PreferencePairs:
    """Precomputed pairs of some splits, and the people who answered them.

    `person_P` numbers the people 0..U-1; split_P counts into SPLITS; sets_P has bit e for each of
    their person's sets that a pair may be met under. unseen_U: whose pairs are never trained on;
    place_U: each person's place in the folder, as in `read_profiles`. Latents and text stay in
    their files until a batch asks for them.
    """

    latent_NCHW: ShardedRows
    text_KST: ShardedRows
    pooled_K1T: ShardedRows
    user_emb_ED: Tensor
    first_embedding_U: Tensor
    embeddings_U: Tensor
    unseen_U: Tensor
    place_U: Tensor
    person_P: Tensor
    split_P: Tensor
    sets_P: Tensor
    chosen_P: Tensor
    rejected_P: Tensor
    caption_P: Tensor
    provenance: dict[str, Any]

    def __len__(self) -> int:
        return len(self.person_P)

    @property
    def people(self) -> int:
        return len(self.embeddings_U)

    def rows_of(self, people: range) -> Tensor:
        """Row numbers of the pairs that these people answered."""
        inside = (self.person_P >= people.start) & (self.person_P < people.stop)
        return torch.nonzero(inside).flatten()

    def rows_in(self, split: Split) -> Tensor:
        """Row numbers of the pairs of a split."""
        return torch.nonzero(self.split_P == SPLITS.index(split)).flatten()

    def batch(self, rows_B: Tensor, draw_B: Tensor) -> PairBatch:
        """The pairs of these rows.

        draw_B: numbers in [0, 1) that choose, for each row, one of its person's embeddings: a
        person who answered several support sets is met under each of them that shows neither the
        pair's caption nor its pictures.
        """
        caption_B = self.caption_P[rows_B]
        return PairBatch(
            chosen_BCHW=self.latent_NCHW[self.chosen_P[rows_B]].float(),
            rejected_BCHW=self.latent_NCHW[self.rejected_P[rows_B]].float(),
            text_BST=self.text_KST[caption_B].float(),
            pooled_B1T=self.pooled_K1T[caption_B].float(),
            user_emb_BD=self.embeddings(rows_B, draw_B),
        )

    def embeddings(self, rows_B: Tensor, draw_B: Tensor) -> Tensor:
        """What stands for these rows' people, B x D; draw_B as in `batch`."""
        person_B = self.person_P[rows_B]
        which_B = drawn_set(self.sets_P[rows_B], draw_B)
        return self.user_emb_ED[self.first_embedding_U[person_B] + which_B]


def drawn_set(sets_B: Tensor, draw_B: Tensor) -> Tensor:
    """The number of one of the bits that are set, drawn evenly by draw_B in [0, 1)."""
    bit_BE = (sets_B[:, None] >> torch.arange(63)) & 1
    counted_BE = bit_BE.cumsum(1)
    count_B = counted_BE[:, -1]
    which_B = (draw_B * count_B).long().clamp(max=count_B - 1)
    return (counted_BE == which_B[:, None] + 1).long().argmax(1)


def load_pairs(
    folder: Path,
    user: UserFeatures,
    user_emb_dim: int,
    splits: Sequence[Split] = TRAINING,
) -> PreferencePairs:
    """The pairs of these splits and the people who answered them; each file's sha256 is checked.

    The two test splits are loaded only where they are asked for. Features narrower than
    `user_emb_dim` are padded with zeros. Raises ValueError when a shard is missing or changed,
    when precompute had not finished, when no pair is of these splits, when the folder lacks what
    `user` needs, and when features are wider than `user_emb_dim`.
    """
    manifest = read_manifest(folder, finished=True)
    latents, captions = verified(folder, "latents-"), verified(folder, "captions-")
    shards = read_shards(folder, "people-")
    for shard in shards:
        if "split_P" not in shard:
            raise ValueError(f"{folder} was precomputed without splits; run training.precompute")
    sets_S = [torch.bincount(shard["person_E"]) for shard in shards]
    may_show_P = torch.cat([_sets_of(*each) for each in zip(shards, sets_S, strict=True)])
    first_person_S = [0, *accumulate(len(sets_U) for sets_U in sets_S)]
    person_P = torch.cat(
        [shard["person_P"] + first for shard, first in zip(shards, first_person_S, strict=False)]
    )
    split_P = torch.cat([shard["split_P"] for shard in shards])
    wanted = torch.tensor([SPLITS.index(split) for split in splits])
    rows_R = torch.nonzero(torch.isin(split_P, wanted)).flatten()
    if not len(rows_R):
        raise ValueError(f"{folder} holds no pair of {', '.join(splits) or 'no split'}")
    place_U, own_R = torch.unique(person_P[rows_R], return_inverse=True)
    unseen_U = torch.zeros(len(place_U), dtype=torch.bool)
    unseen_U[own_R[split_P[rows_R] == SPLITS.index("unseen_users")]] = True
    sets_of_all = torch.cat(sets_S)
    person_E = torch.repeat_interleave(torch.arange(len(sets_of_all)), sets_of_all)
    kept_E = torch.nonzero(torch.isin(person_E, place_U)).flatten()
    embeddings_U = sets_of_all[place_U]
    if user == "one_hot":
        hot_AD = pad_features(torch.eye(len(sets_of_all)), user_emb_dim)
        feature_ED = hot_AD[person_E[kept_E]]
    elif user in ("none", "learned", "given"):
        feature_ED = torch.zeros(1, 1).expand(len(kept_E), user_emb_dim)
    else:
        features = [_features(shard, user, folder) for shard in shards]
        feature_ED = pad_features(torch.cat(features)[kept_E].float(), user_emb_dim)
    return PreferencePairs(
        latent_NCHW=ShardedRows(latents, "latent_NCHW"),
        text_KST=ShardedRows(captions, "text_KST"),
        pooled_K1T=ShardedRows(captions, "pooled_K1T"),
        user_emb_ED=feature_ED,
        first_embedding_U=embeddings_U.cumsum(0) - embeddings_U,
        embeddings_U=embeddings_U,
        unseen_U=unseen_U,
        place_U=place_U,
        person_P=own_R,
        split_P=split_P[rows_R],
        sets_P=may_show_P[rows_R],
        chosen_P=torch.cat([shard["chosen_P"] for shard in shards])[rows_R],
        rejected_P=torch.cat([shard["rejected_P"] for shard in shards])[rows_R],
        caption_P=torch.cat([shard["caption_P"] for shard in shards])[rows_R],
        provenance=manifest["provenance"],
    )


def read_profiles(folder: Path) -> list[dict[str, Any]]:
    """Every person's user id, support sets and profiles, in the order of `place_U`.

    Raises ValueError when a file is missing or changed.
    """
    people = read_lists(folder, "profiles-")
    return [person for person in people if person["sets"] or not person["failed"]]


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
    epoch, index = epoch_of(len(rows_R), batch, step)
    order = np.random.default_rng([seed, epoch]).permutation(len(rows_R))
    return rows_R[torch.from_numpy(order[index * batch : (index + 1) * batch])]


def epoch_of(pairs: int, batch: int, step: int) -> tuple[int, int]:
    """Number of a step's epoch, and of the step in it. Raises ValueError as `batch_rows` does."""
    per_epoch = pairs // batch
    if per_epoch == 0:
        raise ValueError(f"{pairs} pairs do not fill one batch of {batch}")
    return divmod(step, per_epoch)


def _sets_of(shard: dict[str, Tensor], sets_U: Tensor) -> Tensor:
    """sets_P; all of a person's where nothing was said, as in relabelled folders."""
    if "sets_P" in shard:
        return shard["sets_P"]
    return (2**sets_U - 1)[shard["person_P"]]


def _features(shard: dict[str, Tensor], user: UserFeatures, folder: Path) -> Tensor:
    key = {"taste": "taste_UL", "posterior": "posterior_EL", "vlm": "user_emb_ED"}[user]
    if key not in shard:
        lacking = "the VLM" if user == "vlm" else "the ground truth of its people's tastes"
        raise ValueError(f"{folder} was precomputed without {lacking}: it has no {user!r} features")
    return shard[key][shard["person_E"]] if user == "taste" else shard[key]
