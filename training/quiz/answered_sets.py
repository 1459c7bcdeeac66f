"""Simulated people who answer several sets of four pairs, and the VLM's reading of each set.

Legend: E sets, 4 answers each, 2 pictures each, L looks, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ppd_model.types import LabelledPair
from ppd_model.user_encoder import EncodingError, UserEncoder
from training.data.preferences import CHOICES_PER_PROFILE
from training.data.vlm_readings import read_each
from training.world import captions
from training.world.people import answer
from training.world.store import PictureStore

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class AnsweredSets:
    """pictures_E42 are indices into a store, in the order shown; preferred_E4 is 0 or 1."""

    pictures_E42: IntArray
    preferred_E4: IntArray

    def deltas(self, looks_NL: FloatArray) -> FloatArray:
        """Looks of the second picture minus the first, E x 4 x L."""
        shown_E42L = looks_NL[self.pictures_E42]
        return shown_E42L[:, :, 1] - shown_E42L[:, :, 0]


@dataclass(frozen=True)
class ReadSets:
    """What the VLM made of E sets. A set it could not read has NaN for embedding and confidence."""

    user_emb_ED: FloatArray
    profiles: list[str]
    confidence_E: FloatArray

    what: str = "sets"

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Which sets gave an embedding."""
        return ~np.isnan(self.confidence_E)

    def complete(self) -> ReadSets:
        """Itself. Raises ValueError where a set could not be read."""
        if not self.readable.all():
            raise ValueError(f"{self.what}: the VLM could not read {(~self.readable).sum()}")
        return self


def answer_sets(
    seed: int,
    taste_L: FloatArray,
    store: PictureStore,
    sets: int,
    *,
    tie_below: float = 0.0,
) -> AnsweredSets:
    """Random same-content pairs until every set has four decided ones; no picture comes twice.

    Deterministic in `seed`. Raises ValueError when the store runs out of pictures.
    """
    rng = np.random.default_rng([seed, 15])
    contents = store.by_content()
    rows: list[tuple[int, int, int]] = []
    shown: set[int] = set()
    wanted = sets * CHOICES_PER_PROFILE
    for _ in range(100 * wanted):
        if len(rows) == wanted:
            break
        same = contents[int(rng.integers(len(contents)))]
        if len(same) < 2:
            continue
        first, second = (int(i) for i in rng.choice(same, 2, replace=False))
        if first in shown or second in shown:
            continue
        looks_0L, looks_1L = store.looks[first], store.looks[second]
        preferred = answer(taste_L, looks_0L, looks_1L, rng, tie_below=tie_below)
        if preferred is None:
            continue
        rows.append((first, second, preferred))
        shown |= {first, second}
    if len(rows) < wanted:
        raise ValueError(f"person {seed} decided {len(rows)} of {wanted} pairs: too few pictures")
    rows_E43 = np.array(rows, dtype=np.int64).reshape(sets, CHOICES_PER_PROFILE, 3)
    return AnsweredSets(rows_E43[..., :2], rows_E43[..., 2])


def choices_of(
    answered: AnsweredSets, index: int, store: PictureStore, rng: np.random.Generator
) -> list[LabelledPair]:
    """One set as the VLM is asked, with captions in random words."""
    return [
        LabelledPair(
            caption=captions.caption(int(store.subject[a]), int(store.setting[a]), rng),
            image_0=Image.fromarray(np.asarray(store.pictures[a])),
            image_1=Image.fromarray(np.asarray(store.pictures[b])),
            preferred=int(preferred),
        )
        for (a, b), preferred in zip(
            answered.pictures_E42[index].tolist(), answered.preferred_E4[index], strict=True
        )
    ]


def read_sets(
    encoder: UserEncoder,
    many: Sequence[Sequence[LabelledPair]],
    *,
    batch: int,
    seed: int = 0,
    what: str = "sets",
) -> ReadSets:
    """Profiles and embeddings of many sets, as `read_each` comes to them."""
    read = [
        None if isinstance(one, EncodingError) else one
        for one in read_each(encoder, many, len(many), batch=batch, seed=seed, what=what)
    ]
    width = encoder.user_emb_dim
    nothing_D = np.full(width, np.nan, dtype=np.float32)
    rows = [nothing_D if user is None else user.user_emb_D for user in read]
    sure = [math.nan if user is None else user.confidence for user in read]
    return ReadSets(
        user_emb_ED=np.stack(rows) if rows else np.zeros((0, width), dtype=np.float32),
        profiles=["" if user is None else user.profile for user in read],
        confidence_E=np.array(sure, dtype=np.float32),
        what=what,
    )
