"""Many answers: sets of four that are read one by one, and what their readings say together.

The paper reads exactly four answers, and the adapter is trained on embeddings of exactly four. More
of them are read in sets of four, and the user embedding is the mean over the sets
(docs/decisions/0013-every-answer-counts.md says what that brings). Needs no torch.

Legend: N answers, R readings, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ppd_model.profile_texts import Grammar
from ppd_model.prompts import N_PAIRS, likes_and_dislikes
from ppd_model.types import EncodedUser

FloatArray = NDArray[np.float64]

MOST_ANSWERS = 64
"""Answers that a profile is made of at most: sixteen readings."""


@dataclass(frozen=True)
class AnswerSet:
    """Four answers that are read together, by their places, and how much the reading counts."""

    places: range
    weight: float


def read_together(answers: int) -> list[AnswerSet]:
    """The sets in which a person's decided answers, oldest first, are read; none of under four.

    The first four, the next four, and so on, so that further answers leave the sets that were read
    as they are. One to three that are left over are read with those just before them, and that
    reading counts for what is new in it. Of very many answers the oldest sets are left out.
    """
    if answers < N_PAIRS:
        return []
    whole, over = divmod(answers, N_PAIRS)
    sets = [AnswerSet(range(k * N_PAIRS, (k + 1) * N_PAIRS), 1.0) for k in range(whole)]
    if over:
        sets.append(AnswerSet(range(answers - N_PAIRS, answers), over / N_PAIRS))
    return sets[-MOST_ANSWERS // N_PAIRS :]


EXPECTED_COUNTS = 2.0
"""How much the expected reading counts against all readings together."""


@dataclass(frozen=True)
class Expected:
    """What such answers are read as on average (`answers.AnswerModel.expected_reading`).

    It is known of a ``share`` of the answers that the readings are of.
    """

    emb_D: FloatArray
    share: float = 1.0


def joined(
    readings: Sequence[EncodedUser],
    weights: Sequence[float],
    grammar: Grammar | None = None,
    expected: Expected | None = None,
) -> EncodedUser:
    """What readings of one person, oldest first, say together; one alone is given back as it is.

    The embedding is their weighted mean, drawn to what is ``expected`` where that is known. The
    text names the looks of which most weight says the
    same, where all texts are of a ``grammar``; else it is that of the reading whose embedding is
    nearest to the mean, the newest of equals. A text that was given for all readings stays.
    Raises ValueError for no readings, or for weights that are not one, positive, for each.
    """
    if not readings or len(weights) != len(readings) or min(weights) <= 0:
        raise ValueError(f"{len(readings)} readings with weights {list(weights)}")
    if len(readings) == 1:
        return readings[0]
    share_R = np.asarray(weights, dtype=np.float64) / sum(weights)
    emb_RD = np.stack([reading.user_emb_D for reading in readings]).astype(np.float64)
    mean_D = toward_expected(share_R @ emb_RD, expected)
    away_R = np.linalg.norm(emb_RD - mean_D, axis=1)
    nearest = max(i for i, away in enumerate(away_R) if away <= away_R.min() * (1 + 1e-6))
    together = replace(
        readings[nearest],
        transcript="",
        user_emb_D=mean_D.astype(np.float32),
        confidence=float(share_R @ [reading.confidence for reading in readings]),
    )
    texts = [reading.profile for reading in readings]
    if grammar is None or len(set(texts)) == 1:
        return together
    text = grammar.majority(list(zip(texts, share_R.tolist(), strict=True)))
    if text is None:
        return together
    likes, dislikes = likes_and_dislikes(text)
    return replace(together, profile=text, likes=likes, dislikes=dislikes)


def toward_expected(mean_D: FloatArray, expected: Expected | None) -> FloatArray:
    """The mean of several readings, together with what such answers are read as on average.

    A reading says much that is not of the taste, which a few do not average out; what is expected
    of the answers says nothing else.
    """
    if expected is None:
        return mean_D
    counts = EXPECTED_COUNTS * expected.share
    return (mean_D + counts * expected.emb_D) / (1 + counts)
