"""What an earlier folder of training.precompute holds, for a new one over replaced or added files.

Latents are found by the picture's uid, text features by the caption, readings by the four answers.
Pictures count where the file that holds them now is one that the earlier folder was made from; what
could not be read then is tried again.

Legend: N pictures, K captions, E support sets, D embedding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from ppd_model.types import EncodedUser
from training.data.shards import ShardFolder, mapped, read_manifest
from training.jobs.configuration import differences
from training.precompute.plan import NeededPictures, Plan

MADE_BY = (
    "base_model",
    "encoder_id",
    "prompt_variant",
    "decoding",
    "compressor_sha256",
    "compressor_side_px",
    "text_encoder_sha256",
)
"""What decides a latent, a feature or a reading, besides its picture, caption or answers."""


class Earlier:
    """A folder, finished or not, whose parts were made by the same networks.

    Raises ValueError for one that was made by others.
    """

    def __init__(self, folder: Path, made_with: Mapping[str, Any], plan: Plan) -> None:
        provenance = read_manifest(folder)["provenance"]
        there, now = ({key: each[key] for key in MADE_BY} for each in (provenance, made_with))
        if differing := differences(there, now):
            raise ValueError(f"{folder} cannot be used again: it was made with another {differing}")
        self._shards = ShardFolder(folder, provenance, resume=True)
        self._plan = plan
        known = [_content_of(file) for file in provenance["files"]]
        self._same_F = np.array(
            [_content_of(file) in known for file in plan.files.fingerprint()], dtype=bool
        )
        self._latent_of = {
            uid: place
            for name, uids in self._lists("pictures", "latents")
            for uid, place in zip(uids, _rows(folder / name, "latent_NCHW"), strict=True)
        }
        self._features_of = {
            text: place
            for name, texts in self._lists("texts", "captions")
            for text, place in zip(texts, _places(folder / name, len(texts)), strict=True)
        }
        self._readings = dict(self._read_profiles())
        self._same_N = self._unchanged(plan.query) | self._unchanged(plan.support)

    def latent(self, picture: int) -> Tensor | None:
        """That of a picture of the plan, C x H x W."""
        place = self._latent_of.get(self._plan.preferences.pictures[picture])
        if place is None or not self._same_N[picture]:
            return None
        latent_CHW = place[0][place[1]]
        return None if latent_CHW.isnan().any() else latent_CHW.clone()

    def features(self, caption: str) -> tuple[Tensor, Tensor] | None:
        """Text features of a caption, S x T and 1 x T."""
        found = self._features_of.get(caption)
        if found is None:
            return None
        path, row = found
        return mapped(path, "text_KST")[row].clone(), mapped(path, "pooled_K1T")[row].clone()

    def reading(self, pairs: Sequence[int]) -> EncodedUser | None:
        """That of a set of these pairs of the plan, in this order."""
        preferences = self._plan.preferences
        if not self._same_N[preferences.picture_P2[list(pairs)]].all():
            return None
        return self._readings.get(
            tuple(
                (
                    preferences.captions[preferences.caption_P[pair]],
                    *(preferences.pictures[picture] for picture in preferences.picture_P2[pair]),
                    int(preferences.preferred_P[pair]),
                )
                for pair in pairs
            )
        )

    def _unchanged(self, needed: NeededPictures) -> NDArray[np.bool_]:
        same_N = np.zeros(len(self._plan.preferences.pictures), dtype=bool)
        file_N = self._plan.files.file_of(needed.source_N2[:, 0])
        same_N[needed.picture_N] = self._same_F[file_N]
        return same_N

    def _lists(self, kind: str, of: str) -> Iterator[tuple[str, list[Any]]]:
        """Finished shards, each with the list beside it."""
        for path in sorted(self._shards.folder.glob(f"{kind}-*.json")):
            name = path.name.replace(kind, of).replace(".json", ".safetensors")
            if self._shards.has(name) and self._shards.has(path.name):
                yield name, json.loads(path.read_text(encoding="utf-8"))

    def _read_profiles(self) -> Iterator[tuple[tuple[Any, ...], EncodedUser]]:
        for name, people in self._lists("profiles", "people"):
            with safe_open(self._shards.folder / name, framework="np") as file:
                if "user_emb_ED" not in file.keys():  # noqa: SIM118
                    continue
                emb_ED = file.get_tensor("user_emb_ED")
            sets = [each for person in people for each in person["sets"]]
            for each, emb_D in zip(sets, emb_ED, strict=True):
                key = tuple(
                    (pair["caption"], *pair["pictures"], pair["preferred"])
                    for pair in each["pairs"]
                )
                names = ("profile", "confidence", "likes", "dislikes", "heading_given")
                said = {name: each[name] for name in names if name in each}
                yield key, EncodedUser(transcript="", user_emb_D=emb_D, **said)


def _content_of(file: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells a parquet file's content, whatever it is called."""
    return file["bytes"], file["rows"], file["footer_sha256"]


def _rows(path: Path, key: str) -> Iterator[tuple[Tensor, int]]:
    tensor = mapped(path, key)
    return ((tensor, row) for row in range(len(tensor)))


def _places(path: Path, count: int) -> Iterator[tuple[Path, int]]:
    return ((path, row) for row in range(count))
