"""A judge, asked as the paper asks (5.2, B.3): each pair twice, once in either order.

Where the two answers name different pictures the judge followed the order, not the pictures: the
pair is dropped and counted. So is one where an answer could not be read. A judge who follows the
order most of the time is then known by the few pairs that are left; so each share is also given
with such a pair as one half for either side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from ppd_model.types import LabelledPair
from training.reports.statistics import clustered_mean

Outcome = Literal["first", "second", "inconsistent", "unreadable"]
VERDICT = {"first": 0, "second": 1}
"""Consistent outcomes, and the picture that they name."""


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


@runtime_checkable
class JudgeOfMany(Judge, Protocol):
    """A judge that answers several questions together faster than one after the other."""

    def prefer_each(self, questions: Sequence[Question]) -> list[int | None]:
        """As `prefer`, for each."""


class JudgeError(RuntimeError):
    """The judge gave no answer: nothing may be counted, for or against anybody."""


def ask_twice(judge: Judge, question: Question) -> Outcome:
    """The judge's verdict on one question."""
    return _outcome(judge.prefer(question), judge.prefer(question.turned()))


def _outcome(shown: int | None, turned: int | None) -> Outcome:
    if shown is None or turned is None:
        return "unreadable"
    if shown == turned:
        return "inconsistent"
    return "first" if shown == 0 else "second"


def ask_together(part: Sequence[tuple[Judge, Question]]) -> list[Outcome]:
    """The verdicts on some questions; of one judge who can, they are asked at once."""
    judge, _ = part[0]
    if len(part) == 1 or not isinstance(judge, JudgeOfMany) or any(j is not judge for j, _ in part):
        return [ask_twice(judge, question) for judge, question in part]
    shown = judge.prefer_each([question for _, question in part])
    turned = judge.prefer_each([question.turned() for _, question in part])
    return [_outcome(*answers) for answers in zip(shown, turned, strict=True)]


def ask_parts(
    parts: Iterable[Sequence[tuple[Judge, Question]]], *, workers: int = 1
) -> Iterator[list[Outcome]]:
    """Verdicts on each part, in their order; `workers` of them are asked at a time.

    Parts are taken when their turn comes, so that their pictures need not all be in memory.
    Raises JudgeError at the first question that nobody answers; no further one is asked then.
    """
    with ThreadPoolExecutor(max_workers=workers) as pool:
        waiting: deque[Future[list[Outcome]]] = deque()
        try:
            for part in parts:
                waiting.append(pool.submit(ask_together, part))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def tally(outcomes: Sequence[Outcome], right: Sequence[int]) -> dict[str, Any]:
    """How often the consistent verdicts name the right picture, and what was dropped.

    right: 0 or 1 for each outcome: the first or the second picture. The interval redraws
    questions, of which each person has one.
    """
    if len(outcomes) != len(right):
        raise ValueError(f"{len(outcomes)} outcomes and {len(right)} answers")
    people = range(len(right))
    return {
        "questions": len(outcomes),
        **shares("share_right", outcomes, right, people, np.random.default_rng(51)),
        "kept": sum(outcome in VERDICT for outcome in outcomes),
        **{what: outcomes.count(what) for what in ("inconsistent", "unreadable")},
    }


def shares(
    name: str,
    outcomes: Sequence[Outcome],
    wanted: Sequence[int],
    people: Sequence[object],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """How often verdicts name the picture that is wanted; the intervals redraw people.

    NAME: of consistent verdicts alone, as in the paper. NAME_with_halves: inconsistent ones
    counted as one half. Each is None when fewer than two people have such a verdict.
    """
    own = [
        (float(VERDICT[outcome] == picture), person)
        for outcome, picture, person in zip(outcomes, wanted, people, strict=True)
        if outcome in VERDICT
    ]
    halves = [
        (0.5 if outcome == "inconsistent" else float(VERDICT[outcome] == picture), person)
        for outcome, picture, person in zip(outcomes, wanted, people, strict=True)
        if outcome != "unreadable"
    ]
    return {name: _mean(own, rng), f"{name}_with_halves": _mean(halves, rng)}


def _mean(
    won: Sequence[tuple[float, object]], rng: np.random.Generator
) -> dict[str, float | int] | None:
    numbers = {person: number for number, person in enumerate(dict.fromkeys(p for _, p in won))}
    if len(numbers) < 2:
        return None
    won_R = np.array([each for each, _ in won])
    person_R = np.array([numbers[person] for _, person in won])
    return clustered_mean(won_R, person_R, rng).to_dict()
