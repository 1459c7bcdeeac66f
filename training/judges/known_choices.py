"""Choices whose answer is known: what a judge is measured by before it judges anybody.

As in the paper (5.2), 4 + 1 for each person: the four pairs of a support set, and one pair of a
test split that neither the set nor training holds, of which the judge must say what the person
said.

Dimension letters: N pictures, 2: row of the files, and which of its pictures.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ppd_model.pictures.reading import KEPT, PictureError, read_picture
from ppd_model.types import LabelledPair
from training.data.shards import read_lists
from training.data.splits import SPLITS, PersonPairs
from training.judges.judge import Judge, Question, tally
from training.judges.options import JudgeOf
from training.judges.verdicts import Verdicts
from training.precompute.plan import Plan
from training.precompute.source_plan import plan_of
from training.precompute.unreadable import lost_pictures, without

TestSplit = Literal["seen_users", "unseen_users"]


@dataclass(frozen=True)
class KnownPair:
    """Two pictures of a caption as they were shown, JPEG, and which of them (0 or 1) was
    preferred."""

    caption: str
    jpegs: tuple[bytes | PictureError, bytes | PictureError]
    preferred: int


@dataclass(frozen=True)
class KnownChoice:
    """A person's four choices, and one more.

    captions: of all their pairs of the split, each once, the query's first.
    """

    user: str
    support: tuple[KnownPair, ...]
    query: KnownPair
    captions: tuple[str, ...]

    def choices(self) -> list[LabelledPair]:
        """The four, as a judge is told them; the pictures are opened now."""
        return [
            LabelledPair(
                caption=pair.caption,
                image_0=read_picture(pair.jpegs[0], KEPT),
                image_1=read_picture(pair.jpegs[1], KEPT),
                preferred=pair.preferred,
            )
            for pair in self.support
        ]

    def question(self) -> Question:
        """Which of the one more's pictures they preferred, as a judge is asked."""
        return Question(
            choices=self.choices(),
            prompt=self.query.caption,
            first=read_picture(self.query.jpegs[0]),
            second=read_picture(self.query.jpegs[1]),
        )


def known_choices(
    folder: Path,
    split: TestSplit,
    people: int | None = None,
    *,
    among: Collection[str] | None = None,
) -> list[KnownChoice]:
    """One for each person of a test split of a precomputed folder, for the first `people`.

    among: the user ids that count; None takes all. People whose first set could not be read, and
    pairs with a picture that could not, are left out.

    Raises ValueError when the split has nobody, or the folder was made from other parquet files.
    """
    plan = plan_of(folder)
    lost_N = lost_pictures(folder, plan)
    unread = {
        person["user_id"]
        for person in read_lists(folder, "profiles-")
        if any(failed["set"] == 0 for failed in person["failed"])
    }
    chosen = [
        (person, person.query_P[person.split_P == SPLITS.index(split)].tolist())
        for person in (without(person, lost_N, plan) for person in plan.people)
        if len(person.support_E4)
        and plan.preferences.users[person.user] not in unread
        and (person.split_P == SPLITS.index(split)).any()
        and (among is None or plan.preferences.users[person.user] in among)
    ][:people]
    if not chosen:
        raise ValueError(f"{folder}: nobody with four choices is in {split!r}")
    jpegs = _jpegs(plan, chosen)
    users = plan.preferences.users
    return [
        KnownChoice(
            user=users[person.user],
            support=tuple(_pair(plan, int(pair), jpegs) for pair in person.support_E4[0]),
            query=_pair(plan, queries[0], jpegs),
            captions=tuple(dict.fromkeys(_caption(plan, query) for query in queries)),
        )
        for person, queries in chosen
    ]


def accuracy(
    known: Sequence[KnownChoice],
    judge_of: JudgeOf,
    verdicts: Verdicts,
    match: str,
    *,
    workers: int = 1,
    together: int = 1,
) -> dict[str, Any]:
    """What `tally` says of the judge's answers, with every outcome and which picture was right.

    verdicts: where those of this group, `match`, are kept; the rest is as `Verdicts.on` has it.
    Raises JudgeError when an endpoint does not answer.
    """
    right = [one.query.preferred for one in known]

    def question_of(place: int) -> tuple[Judge, Question]:
        return judge_of(known[place].user), known[place].question()

    facts = [{"user": one.user, "prompt": one.query.caption} for one in known]
    outcomes = verdicts.on(match, facts, question_of, workers=workers, together=together)
    return {**tally(outcomes, right), "outcomes": outcomes, "right": right}


def _jpegs(
    plan: Plan, chosen: Sequence[tuple[PersonPairs, list[int]]]
) -> dict[tuple[int, int], bytes | PictureError]:
    """The bytes of all pictures that are needed, by row and side, read in the files' order."""
    rows = {
        int(plan.preferences.row_P[pair])
        for person, queries in chosen
        for pair in [*person.support_E4[0].tolist(), queries[0]]
    }
    source_N2 = np.array([(row, side) for row in sorted(rows) for side in (0, 1)], dtype=np.int64)
    read = plan.files.pictures(source_N2)
    return {(row, side): jpeg for (row, side), jpeg in zip(source_N2.tolist(), read, strict=True)}


def _pair(plan: Plan, pair: int, jpegs: dict[tuple[int, int], bytes | PictureError]) -> KnownPair:
    preferences = plan.preferences
    row = int(preferences.row_P[pair])
    return KnownPair(
        caption=_caption(plan, pair),
        jpegs=(jpegs[row, 0], jpegs[row, 1]),
        preferred=int(preferences.preferred_P[pair]),
    )


def _caption(plan: Plan, pair: int) -> str:
    caption: str = plan.preferences.captions[plan.preferences.caption_P[pair]]
    return caption
