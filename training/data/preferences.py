"""Which rows of a data set are decided preferences: ties and missing labels never become a win.

`read_preferences` reads the labels of all rows once and keeps what can be trained on, in compact
arrays; every row that is left out is counted under its reason.

Dimension letters: P pairs, 2 pictures as shown, U people, K captions, N pictures.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.data.pair_files import PairFiles

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
    people with too few decided pairs to be read, `small_users` of them. pairs: what is kept.
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


def read_preferences(
    files: PairFiles, batch_rows: int = 16_384, at_least: int = CHOICES_PER_PROFILE
) -> Preferences:
    """All decided pairs of people with at least that many of them, in the order of the files.

    What is kept does not depend on the order of the rows. Raises ValueError when nothing is left.
    Legend: D decided rows, A answers (of one person to the same two pictures, in D's order).
    """
    reasons: Counter[str] = Counter()
    table = _decided_rows(files, batch_rows, reasons)
    user_D, users = _numbered(table["user_id"].combine_chunks())
    caption_D, captions = _numbered(table["caption"].combine_chunks())
    shown_D2 = [table[name].to_numpy() for name in ("image_0_uid", "image_1_uid")]
    picture_2D, pictures = _numbered(pa.array(np.stack(shown_D2, axis=1).ravel(), pa.string()))
    picture_D2 = picture_2D.reshape(-1, 2)
    preferred_D = table["preferred"].to_numpy()

    key_D3 = np.column_stack([user_D, picture_D2.min(1), picture_D2.max(1)])
    _, first_A, answer_D = np.unique(key_D3, axis=0, return_index=True, return_inverse=True)
    answer_D = answer_D.ravel()
    winner_D = picture_D2[np.arange(len(picture_D2)), preferred_D]
    rows_A = np.bincount(answer_D)
    reversed_A = np.bincount(answer_D, winner_D != winner_D[first_A][answer_D]) > 0
    # Of equal answers the least by caption and first picture stays, in whatever order they come.
    least = np.lexsort((_ranks(pictures)[picture_D2[:, 0]], _ranks(captions)[caption_D], answer_D))
    stays_A = least[np.unique(answer_D[least], return_index=True)[1]]

    clear = np.argsort(first_A)
    clear = clear[~reversed_A[clear]]
    of_user_U = np.bincount(user_D[stays_A[clear]], minlength=len(users))
    kept_P = stays_A[clear]
    kept_P = kept_P[of_user_U[user_D[kept_P]] >= at_least]
    if not len(kept_P):
        raise ValueError(
            f"none of {len(files)} rows is a decided pair of a person with at least "
            f"{at_least} of them: {dict(reasons)}"
        )
    user_P, user_names = _renumbered(user_D[kept_P], users)
    caption_P, caption_names = _renumbered(caption_D[kept_P], captions)
    picture_P2, picture_names = _renumbered(picture_D2[kept_P], pictures)
    return Preferences(
        user_P=user_P,
        caption_P=caption_P,
        picture_P2=picture_P2,
        preferred_P=preferred_D[kept_P],
        row_P=table["row"].to_numpy()[kept_P],
        users=user_names,
        captions=caption_names,
        pictures=picture_names,
        counts=ReadCounts(
            rows=len(files),
            incomplete=reasons["incomplete"],
            unlabelled=reasons["unlabelled"],
            ties=reasons["ties"],
            contradictions=reasons["contradictions"],
            duplicates=int((rows_A[clear] - 1).sum()),
            reversed=int(rows_A[reversed_A].sum()),
            of_small_users=len(clear) - len(kept_P),
            pairs=len(kept_P),
            small_users=int(((of_user_U > 0) & (of_user_U < at_least)).sum()),
            users=len(user_names),
            captions=len(caption_names),
            pictures=len(picture_names),
        ),
    )


def _numbered(names: pa.Array) -> tuple[IntArray, list[str]]:
    """Numbers for strings, in the order of their first use, and the strings."""
    coded = names.dictionary_encode()
    return coded.indices.to_numpy().astype(np.int64), coded.dictionary.to_pylist()


def _ranks(names: list[str]) -> IntArray:
    """Each name's place in the alphabet."""
    ranks = np.empty(len(names), dtype=np.int64)
    ranks[np.argsort(np.array(names, dtype=object))] = np.arange(len(names))
    return ranks


def _renumbered(numbers: IntArray, names: list[str]) -> tuple[IntArray, list[str]]:
    """Numbers without gaps, and the names that are left."""
    used, again = np.unique(numbers, return_inverse=True)
    return again.reshape(numbers.shape).astype(np.int64), [names[number] for number in used]


def _decided_rows(files: PairFiles, batch_rows: int, reasons: Counter[str]) -> pa.Table:
    """Who was shown what, which of the two they preferred, and the row; others are counted."""
    names = ["user_id", "caption", "image_0_uid", "image_1_uid"]
    kinds = {**dict.fromkeys(names, pa.string()), "preferred": pa.int64(), "row": pa.int64()}
    schema = pa.schema(kinds)
    decided = []
    for first_row, batch in files.labels(batch_rows):
        verdict_R, preferred_R = judge_rows(batch)
        reasons.update(Counter(_VERDICTS[code] for code in verdict_R.tolist()))
        at_D = np.flatnonzero(verdict_R == _DECIDED)
        columns = [batch.column(name).take(at_D).cast(pa.string()) for name in names]
        columns += [pa.array(preferred_R[at_D]), pa.array(first_row + at_D)]
        decided.append(pa.RecordBatch.from_arrays(columns, schema=schema))
    return pa.Table.from_batches(decided, schema)


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
