"""QuizRules people about pairs: which one next, what they answer, what the answers tell.

Pure. pair_choice.py says what the strategies are and measures them.

Legend: P pairs of the pool, N answers, L looks, K coordinates, Q quadrature points, S samples of
the population.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ppd_model.answers import belief
from training.world import tastes

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Strategy = Literal["random", "spread", "active", "oracle", "served_first"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

SERVED_FIRST_CANDIDATES = 24
SERVED_FIRST_PRECISION = 0.5
_NODES_Q, _WEIGHTS_Q = np.polynomial.hermite_e.hermegauss(16)
_WEIGHTS_Q /= _WEIGHTS_Q.sum()


@dataclass(frozen=True)
class QuizRules:
    """How people are asked.

    answers: decided ones that are wanted. near_best: "spread" and "active" ask the first pair, in
    the person's own order, that tells at least this share of what the best would tell, so that
    people differ. tie_below: as in training. oracle_samples: people the oracle imagines.
    """

    answers: int
    near_best: float
    tie_below: float
    oracle_samples: int


@dataclass(frozen=True)
class QuizPool:
    """The pool. looks_PL and coordinates_PK: the second picture's minus the first's."""

    pair_ids: list[str]
    captions: list[str]
    images: list[tuple[Image.Image, Image.Image]]
    looks_PL: FloatArray
    coordinates_PK: FloatArray


@dataclass(frozen=True)
class Asked:
    """What one person was asked: pairs of the pool and answers (0, 1; None for a tie), in order."""

    pairs: list[int]
    answers: list[int | None]

    def decided(self) -> tuple[IntArray, IntArray]:
        """Pairs and answers without the ties."""
        kept = [(p, a) for p, a in zip(self.pairs, self.answers, strict=True) if a is not None]
        rows = np.array(kept, dtype=np.int64).reshape(-1, 2)
        return rows[:, 0], rows[:, 1]


class Chooser(Protocol):
    """Which pair to ask next."""

    def __call__(self, asked: Asked, left: Sequence[int]) -> int:
        """One of `left`, the pairs that may be asked, in the person's own order."""


def play(
    strategy: Strategy,
    pool: QuizPool,
    taste_L: FloatArray,
    seed: int,
    prior_SL: FloatArray,
    rules: QuizRules,
) -> Asked:
    """Ask one person until `rules.answers` pairs are decided.

    Raises ValueError when the pool has too few pairs for that.
    """
    order = np.random.default_rng([seed, 20]).permutation(len(pool.pair_ids)).tolist()
    chooser = chooser_of(strategy, pool, prior_SL, rules, seed)
    asked = Asked([], [])
    while sum(answer is not None for answer in asked.answers) < rules.answers:
        left = [pair for pair in order if pair not in asked.pairs]
        if strategy == "served_first":
            left = left[:SERVED_FIRST_CANDIDATES]
        if not left:
            raise ValueError(f"{strategy}: no pair of {len(order)} is left to ask")
        pair = chooser(asked, left)
        asked.pairs.append(pair)
        asked.answers.append(answer_to(pair, pool, taste_L, seed, rules.tie_below))
    return asked


def answer_to(
    pair: int, pool: QuizPool, taste_L: FloatArray, seed: int, tie_below: float
) -> int | None:
    """This person's answer to this pair, always the same (Bradley-Terry; ties as in training)."""
    margin = tastes.CHOICE_SCALE * float(taste_L @ pool.looks_PL[pair])
    if abs(margin) < tie_below:
        return None
    return int(np.random.default_rng([seed, 21, pair]).random() < 1 / (1 + np.exp(-margin)))


def chooser_of(
    strategy: Strategy, pool: QuizPool, prior_SL: FloatArray, rules: QuizRules, seed: int
) -> Chooser:
    if strategy == "random":
        return lambda asked, left: left[0]
    if strategy == "oracle":
        rng = np.random.default_rng([seed, 22])
        return lambda asked, left: best_of(
            left, oracle_gain(pool.looks_PL, asked, left, prior_SL, rules.oracle_samples, rng)
        )

    def chooser(asked: Asked, left: Sequence[int]) -> int:
        if strategy == "served_first":
            gain_P = spread_gain(pool.looks_PL, asked, left, SERVED_FIRST_PRECISION)
            return best_of(left, new_captions(pool.captions, asked, left, gain_P))
        gain_of = spread_gain if strategy == "spread" else active_gain
        gain_P = gain_of(pool.coordinates_PK, asked, left)
        gain_P = new_captions(pool.captions, asked, left, gain_P)
        return best_of(left, gain_P, rules.near_best)

    return chooser


def spread_gain(
    delta_PK: FloatArray, asked: Asked, left: Sequence[int], precision: float = 1.0
) -> FloatArray:
    """d' A^-1 d of each pair, A the information of what was asked, whatever was answered."""
    seen_NK = delta_PK[asked.pairs]
    inverse_KK = np.linalg.inv(precision * np.eye(delta_PK.shape[1]) + seen_NK.T @ seen_NK)
    gain_P: FloatArray = ((delta_PK[left] @ inverse_KK) * delta_PK[left]).sum(1)
    return gain_P


def active_gain(delta_PK: FloatArray, asked: Asked, left: Sequence[int]) -> FloatArray:
    """What the answer to each pair would tell about the taste, given the answers so far, in nats.

    The service's quiz (service/core/quiz.py) computes the same; a test holds the two together.
    """
    answers = [0.5 if answer is None else float(answer) for answer in asked.answers]
    now = belief(delta_PK[asked.pairs], np.array(answers))
    margin_P = delta_PK[left] @ now.mean_K
    return information(margin_P, deviations(delta_PK[left], now.covariance_KK))


def new_captions(
    captions: Sequence[str], asked: Asked, left: Sequence[int], gain_P: FloatArray
) -> FloatArray:
    """No gain for captions that were asked, as long as there are others."""
    used = {captions[pair] for pair in asked.pairs}
    fresh_P = np.array([captions[pair] not in used for pair in left])
    return np.where(fresh_P, gain_P, -np.inf) if fresh_P.any() else gain_P


def best_of(left: Sequence[int], gain_P: FloatArray, near_best: float = 1.0) -> int:
    """The first pair that gains at least `near_best` of the largest gain."""
    return left[int(np.argmax(gain_P >= near_best * gain_P.max()))]


def deviations(delta_PK: FloatArray, covariance_KK: FloatArray) -> FloatArray:
    """Standard deviation of each pair's margin."""
    variance_P = ((delta_PK @ covariance_KK) * delta_PK).sum(1)
    deviation_P: FloatArray = np.sqrt(np.maximum(variance_P, 0))
    return deviation_P


def information(mean_P: FloatArray, deviation_P: FloatArray) -> FloatArray:
    """Mutual information, in nats, of an answer and a normal margin, by quadrature.

    Entropy of the answer less the entropy that is left when the margin is known.
    """
    margin_PQ = mean_P[:, None] + deviation_P[:, None] * _NODES_Q
    chance_PQ = (1 + np.tanh(margin_PQ / 2)) / 2
    gained_P: FloatArray = entropy(chance_PQ @ _WEIGHTS_Q) - entropy(chance_PQ) @ _WEIGHTS_Q
    return gained_P


def entropy(chance: FloatArray) -> FloatArray:
    """Of a yes-or-no answer, in nats."""
    inside = np.clip(chance, 1e-12, 1 - 1e-12)
    left: FloatArray = -inside * np.log(inside) - (1 - inside) * np.log(1 - inside)
    return left


def oracle_gain(
    looks_PL: FloatArray,
    asked: Asked,
    left: Sequence[int],
    prior_SL: FloatArray,
    samples: int,
    rng: np.random.Generator,
) -> FloatArray:
    """`active_gain` with the true looks and the true population, by weighing samples of it."""
    pairs_N, answers_N = asked.decided()
    weight_S = likelihood(looks_PL[pairs_N], answers_N, prior_SL)
    drawn_SL = prior_SL[rng.choice(len(prior_SL), samples, p=weight_S)]
    chance_PS = 1 / (1 + np.exp(-tastes.CHOICE_SCALE * looks_PL[left] @ drawn_SL.T))
    gain_P: FloatArray = entropy(chance_PS.mean(1)) - entropy(chance_PS).mean(1)
    return gain_P


def likelihood(looks_NL: FloatArray, answers_N: IntArray, prior_SL: FloatArray) -> FloatArray:
    """How much each sample of the population weighs after these answers; sums to one."""
    sign_N = np.where(answers_N == 1, 1.0, -1.0)
    margin_SN = tastes.CHOICE_SCALE * (prior_SL @ looks_NL.T) * sign_N
    log_S = -np.logaddexp(0, -margin_SN).sum(axis=1)
    weight_S = np.exp(log_S - log_S.max())
    normal_S: FloatArray = weight_S / weight_S.sum()
    return normal_S


def estimates(
    quizzes: Sequence[Asked], pool: QuizPool, prior_SL: FloatArray, answers: int
) -> FloatArray:
    """The best estimate of each taste after n = 1 ... answers, U x N x L."""
    found = []
    for quiz in quizzes:
        pairs_N, answers_N = quiz.decided()
        found.append(
            [
                likelihood(pool.looks_PL[pairs_N[:n]], answers_N[:n], prior_SL) @ prior_SL
                for n in range(1, answers + 1)
            ]
        )
    return np.array(found)
