"""What a person's answers to the pool's pairs foretell, from the pool's `answers.json`.

Answers are as profile versions keep them. Nothing is foretold of another reader or adapter than
those it was measured with, nor where a person's own words stand beside the answers.

Legend: N answers, P pairs, K coordinates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppd_model.answers import MORE, belief
from ppd_model.readings import Expected
from service.core.choices import sets_of
from service.core.pool import Pair, Pool
from service.core.quiz import coordinates

Answers = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Foretold:
    """The chance that a picture with the taste pleases more than without, now and, where that was
    measured, after four more answers."""

    now: float
    after_four_more: float | None


def expected_reading(pool: Pool, answers: Answers, encoder_version: str) -> Expected | None:
    """What such answers are read as on average; None where it is not known or not needed."""
    model = pool.answer_model
    known = _of_pool(pool, answers)
    if model is None or model.encoder_version != encoder_version or not known:
        return None
    if len(sets_of(answers)) == 1:
        return None
    mean_K = belief(*_as_numbers(pool, known)).mean_K
    return Expected(model.expected_reading(mean_K), len(known) / len(answers))


def foretold(
    pool: Pool, answers: Answers, encoder_version: str | None, adapter_version: str | None
) -> Foretold | None:
    """How often taste will please; None where nobody has measured that."""
    model = pool.answer_model
    if model is None or not answers or len(answers) > model.most_answers:
        return None
    if (model.encoder_version, model.adapter_version) != (encoder_version, adapter_version):
        return None
    known = _of_pool(pool, answers)
    if len(known) < len(answers):
        return None
    delta_NK, answer_N = _as_numbers(pool, known)
    now = belief(delta_NK, answer_N)
    wins = model.wins(now.clearness)
    if wins is None:
        return None
    later = None
    if len(answers) + MORE <= model.most_answers:
        given = {pair.pair_id for pair, _ in known}
        left = [pair for pair in pool.pairs if pair.pair_id not in given]
        left_PK = coordinates(left, pool.pairs)
        later = model.wins_after_more(now, delta_NK, answer_N, left_PK)
    return Foretold(float(wins), later)


def _of_pool(pool: Pool, answers: Answers) -> list[tuple[Pair, int]]:
    """The answers about pairs that the pool has."""
    found = [(pool.get(answer["pair_id"] or ""), answer["preferred"]) for answer in answers]
    return [(pair, preferred) for pair, preferred in found if pair is not None]


def _as_numbers(
    pool: Pool, known: Sequence[tuple[Pair, int]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The pairs' coordinates, N x K, and which picture was preferred, N."""
    delta_NK = coordinates([pair for pair, _ in known], pool.pairs)
    return delta_NK, np.array([preferred for _, preferred in known], dtype=np.float64)
