"""How a generation is conditioned: whose profile, how strongly, and if not, why not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ppd_model.types import Embedding

Reason = Literal["no_profile", "encoding", "encoding_failed", "encoder_changed", "strength_zero"]
"""Why personalisation was not applied. `reencoded` is said where it was, with a newer version."""


@dataclass(frozen=True)
class Found:
    """What a user has: a ready profile version, and one that is being encoded."""

    ready_pk: str | None
    encoding_pk: str | None


@dataclass(frozen=True)
class Pin:
    """What a job will use of a user: a profile version, or the reason why none."""

    profile_pk: str | None
    reason: Reason | None


def pin(found: Found, *, waits: bool) -> Pin:
    """Choose the version. Before the first one is ready, only a client that waits gets it."""
    if found.ready_pk is not None:
        return Pin(found.ready_pk, None)
    if found.encoding_pk is None:
        return Pin(None, "no_profile")
    if waits:
        return Pin(found.encoding_pk, None)
    return Pin(None, "encoding")


def blend(embeddings: Sequence[tuple[Embedding, float]]) -> Embedding:
    """The weighted mean of embeddings; weights are positive and are normalised to sum to one."""
    total = sum(weight for _, weight in embeddings)
    assert total > 0, "weights are positive"
    mixed_D = sum(emb_D.astype(np.float64) * (weight / total) for emb_D, weight in embeddings)
    return np.asarray(mixed_D, dtype=np.float32)
