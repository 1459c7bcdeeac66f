"""A judge, asked as the paper asks (5.2, B.3): each pair twice, once in either order.

Where the two answers name different pictures the judge followed the order, not the pictures: the
pair is dropped and counted. So is one where an answer could not be read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from ppd_model.types import LabelledPair
from training.reports.statistics import clustered_mean

Outcome = Literal["first", "second", "inconsistent", "unreadable"]


@dataclass(frozen=True)
class Question:
    """Which of two pictures of a prompt: the judge knows the person from `choices`."""

    choices: Sequence[LabelledPair]
    prompt: str
    first: Image.Image
    second: Image.Image

    def turned(self) -> Question:
        """The same with the pictures in the other order."""
        return Question(self.choices, self.prompt, self.second, self.first)


class Judge(Protocol):
    """Somebody who predicts what a person would prefer.

    identity: what answers, for results.
    """

    identity: str

    def prefer(self, question: Question) -> int | None:
        """0 for the first picture, 1 for the second, as a person with these choices would say;
        None where no preference could be read from the answer.

        Raises JudgeError when no answer was to be had at all.
        """


class JudgeError(RuntimeError):
    """The judge gave no answer: nothing may be counted, for or against anybody."""


def ask_twice(judge: Judge, question: Question) -> Outcome:
    """The judge's verdict on one question."""
    shown, turned = judge.prefer(question), judge.prefer(question.turned())
    if shown is None or turned is None:
        return "unreadable"
    if shown == turned:
        return "inconsistent"
    return "first" if shown == 0 else "second"


def ask_all(questions: Iterable[tuple[Judge, Question]], *, workers: int = 1) -> Iterator[Outcome]:
    """Verdicts in the order of the questions; `workers` of them are asked at a time.

    Questions are taken when their turn comes, so that their pictures need not all be in memory.
    Raises JudgeError at the first question that nobody answers; no further one is asked then.
    """
    with ThreadPoolExecutor(max_workers=workers) as pool:
        waiting: deque[Future[Outcome]] = deque()
        try:
            for judge, question in questions:
                waiting.append(pool.submit(ask_twice, judge, question))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def tally(outcomes: Sequence[Outcome], right: Sequence[int]) -> dict[str, Any]:
    """How often the consistent verdicts name the right picture, and what was dropped.

    right: 0 or 1 for each outcome: the first or the second picture. The interval redraws
    questions, of which each person has one. "share_right" is None when fewer than two verdicts are
    consistent.
    """
    if len(outcomes) != len(right):
        raise ValueError(f"{len(outcomes)} outcomes and {len(right)} answers")
    share, kept = consistent_share(outcomes, right, range(len(right)), np.random.default_rng(51))
    return {
        "questions": len(outcomes),
        "share_right": share,
        "kept": kept,
        **{what: outcomes.count(what) for what in ("inconsistent", "unreadable")},
    }


def consistent_share(
    outcomes: Sequence[Outcome],
    wanted: Sequence[int],
    people: Sequence[object],
    rng: np.random.Generator,
) -> tuple[dict[str, float | int] | None, int]:
    """How often consistent verdicts name the picture that is wanted, and how many are consistent.

    The interval redraws people. The share is None when fewer than two have a consistent verdict.
    """
    verdict = {"first": 0, "second": 1}
    kept = [
        (float(verdict[outcome] == picture), person)
        for outcome, picture, person in zip(outcomes, wanted, people, strict=True)
        if outcome in verdict
    ]
    numbers = {person: number for number, person in enumerate(dict.fromkeys(p for _, p in kept))}
    if len(numbers) < 2:
        return None, len(kept)
    won_R = np.array([won for won, _ in kept])
    person_R = np.array([numbers[person] for _, person in kept])
    return clustered_mean(won_R, person_R, rng).to_dict(), len(kept)
