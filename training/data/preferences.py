"""Which rows of Pick-a-Pic are decided preferences: ties and missing labels never become a win.

`read_preferences` reads the labels of all rows once and keeps what can be trained on, in compact
arrays; every row that is left out is counted under its reason.

Dimension letters: P pairs, 2 pictures as shown, U people, K captions, N pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.data.pickapic import PickAPic

IntArray = NDArray[np.int64]

CHOICES_PER_PROFILE = 4
"""N of the paper: pairs behind one embedding; people with fewer decided pairs are left out."""


@dataclass(frozen=True)
class ReadCounts:
    """What became of the rows. The first eight after `rows` add up to it.

    incomplete: no user, caption or picture id. unlabelled: has_label false, or a label missing.
    ties: are_different false, or a label of one half. contradictions: labels that are not one 1
    and one 0, a best_image_uid that is not the winner's, or twice the same picture. duplicates:
    the same person's same answer to the same two pictures again. reversed: the same person's two
    opposite answers to the same two pictures (all of them are left out). of_small_users: pairs of
    people with fewer than four decided pairs, `small_users` of them. pairs: what is kept.
    """

    rows: int
    incomplete: int
    unlabelled: int
    ties: int
    contradictions: int
    duplicates: int
    reversed: int
    of_small_users: int
    pairs: int
    small_users: int
    users: int
    captions: int
    pictures: int

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True)
class Preferences:
    """P decided pairs.

    user_P, caption_P and picture_P2 count into `users`, `captions` and `pictures`; picture_P2 is
    in the order shown, preferred_P says which of the two (0 or 1) was preferred; row_P is the
    pair's row in the files.
    """

    user_P: IntArray
    caption_P: IntArray
    picture_P2: IntArray
    preferred_P: IntArray
    row_P: IntArray
    users: list[str]
    captions: list[str]
    pictures: list[str]
    counts: ReadCounts

    def __len__(self) -> int:
        return len(self.user_P)


@dataclass(frozen=True)
class _Row:
    row: int
    user: str
    caption: str
    uid_0: str
    uid_1: str
    preferred: int


class _Names:
    """Numbers for strings, in the order of their first use."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        number = self._numbers.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
        return number


@dataclass
class _Answer:
    """One person's answer to one pair of pictures, and how many rows gave it."""

    user: int
    caption: int
    pictures: tuple[int, int]
    preferred: int
    row: int
    rows: int = 1
    reversed: bool = False

    @property
    def winner(self) -> int:
        return self.pictures[self.preferred]


def read_preferences(files: PickAPic, batch_rows: int = 16_384) -> Preferences:
    """All decided pairs of people with at least four of them.

    What is kept does not depend on the order of the rows. Raises ValueError when nothing is left.
    """
    reasons: Counter[str] = Counter()
    users, captions, pictures = _Names(), _Names(), _Names()
    answers: dict[tuple[int, int, int], _Answer] = {}
    for row in _decided_rows(files, batch_rows, reasons):
        user = users.number(row.user)
        shown = (pictures.number(row.uid_0), pictures.number(row.uid_1))
        new = _Answer(user, captions.number(row.caption), shown, row.preferred, row.row)
        old = answers.setdefault((user, min(shown), max(shown)), new)
        if old is new:
            continue
        old.rows += 1
        old.reversed |= old.winner != new.winner
        # Of equal answers the least by caption and first picture stays, in whatever order they
        # come.
        if (row.caption, row.uid_0) < (
            captions.names[old.caption],
            pictures.names[old.pictures[0]],
        ):
            old.caption, old.pictures = new.caption, new.pictures
            old.preferred, old.row = new.preferred, new.row
    return _collect(len(files), reasons, list(answers.values()), users, captions, pictures)


def _collect(
    rows: int,
    reasons: Counter[str],
    answers: list[_Answer],
    users: _Names,
    captions: _Names,
    pictures: _Names,
) -> Preferences:
    clear = [answer for answer in answers if not answer.reversed]
    of_user = Counter(answer.user for answer in clear)
    kept = [answer for answer in clear if of_user[answer.user] >= CHOICES_PER_PROFILE]
    if not kept:
        raise ValueError(
            f"none of {rows} rows is a decided pair of a person with at least "
            f"{CHOICES_PER_PROFILE} of them: {dict(reasons)}"
        )
    user_P, user_names = _renumbered([answer.user for answer in kept], users.names)
    caption_P, caption_names = _renumbered([answer.caption for answer in kept], captions.names)
    picture_P2, picture_names = _renumbered([answer.pictures for answer in kept], pictures.names)
    return Preferences(
        user_P=user_P,
        caption_P=caption_P,
        picture_P2=picture_P2,
        preferred_P=np.array([answer.preferred for answer in kept], dtype=np.int64),
        row_P=np.array([answer.row for answer in kept], dtype=np.int64),
        users=user_names,
        captions=caption_names,
        pictures=picture_names,
        counts=ReadCounts(
            rows=rows,
            incomplete=reasons["incomplete"],
            unlabelled=reasons["unlabelled"],
            ties=reasons["ties"],
            contradictions=reasons["contradictions"],
            duplicates=sum(answer.rows - 1 for answer in clear),
            reversed=sum(answer.rows for answer in answers if answer.reversed),
            of_small_users=len(clear) - len(kept),
            pairs=len(kept),
            small_users=sum(count < CHOICES_PER_PROFILE for count in of_user.values()),
            users=len(user_names),
            captions=len(caption_names),
            pictures=len(picture_names),
        ),
    )


def _renumbered(numbers: list[Any], names: list[str]) -> tuple[IntArray, list[str]]:
    """Numbers without gaps, and the names that are left."""
    used, again = np.unique(np.array(numbers, dtype=np.int64), return_inverse=True)
    shape = (len(numbers), -1) if numbers and isinstance(numbers[0], tuple) else (len(numbers),)
    return again.reshape(shape).astype(np.int64), [names[number] for number in used]


def _decided_rows(files: PickAPic, batch_rows: int, reasons: Counter[str]) -> Iterator[_Row]:
    for first_row, batch in files.labels(batch_rows):
        verdict_R, preferred_R = judge_rows(batch)
        reasons.update(Counter(_VERDICTS[code] for code in verdict_R.tolist()))
        user, caption, uid_0, uid_1 = (
            batch.column(name).to_pylist()
            for name in ("user_id", "caption", "image_0_uid", "image_1_uid")
        )
        for at in np.flatnonzero(verdict_R == _DECIDED).tolist():
            yield _Row(
                row=first_row + at,
                user=str(user[at]),
                caption=caption[at],
                uid_0=uid_0[at],
                uid_1=uid_1[at],
                preferred=int(preferred_R[at]),
            )


_VERDICTS = ("decided", "incomplete", "unlabelled", "ties", "contradictions")
_DECIDED, _INCOMPLETE, _UNLABELLED, _TIE, _CONTRADICTION = range(len(_VERDICTS))


def judge_rows(batch: pa.RecordBatch) -> tuple[IntArray, IntArray]:
    """For each row a verdict (0: decided; else why not) and the preferred picture, 0 or 1.

    The preferred picture means nothing where the row is not decided.
    """

    def text(name: str) -> NDArray[np.object_]:
        column: NDArray[np.object_] = batch.column(name).to_numpy(zero_copy_only=False)
        return column

    def flag(name: str) -> NDArray[np.bool_]:
        values: NDArray[np.bool_] = (
            batch.column(name).fill_null(False).to_numpy(zero_copy_only=False)
        )
        return values.astype(bool)

    def number(name: str) -> NDArray[np.float64]:
        column = batch.column(name).cast(pa.float64())
        values: NDArray[np.float64] = column.fill_null(np.nan).to_numpy(zero_copy_only=False)
        return values

    def missing(*names: str) -> NDArray[np.bool_]:
        masks = [batch.column(name).is_null().to_numpy(zero_copy_only=False) for name in names]
        found: NDArray[np.bool_] = np.logical_or.reduce(masks)
        return found

    label_0, label_1 = number("label_0"), number("label_1")
    uid_0, uid_1, best = text("image_0_uid"), text("image_1_uid"), text("best_image_uid")
    preferred_R = (label_1 > label_0).astype(np.int64)
    winner = np.where(preferred_R == 1, uid_1, uid_0)
    opposite = ((label_0 == 1) & (label_1 == 0)) | ((label_0 == 0) & (label_1 == 1))
    verdict_R = np.select(
        [
            missing("user_id", "caption", "image_0_uid", "image_1_uid"),
            ~flag("has_label") | np.isnan(label_0) | np.isnan(label_1) | missing("are_different"),
            ~flag("are_different") | (label_0 == 0.5) | (label_1 == 0.5),
            ~opposite | (winner != best) | (uid_0 == uid_1),
        ],
        [_INCOMPLETE, _UNLABELLED, _TIE, _CONTRADICTION],
        default=_DECIDED,
    )
    return verdict_R.astype(np.int64), preferred_R
