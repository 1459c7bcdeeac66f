"""Which rows are decided preferences."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fake_pickapic import Row, row, write
from training.data.pickapic import PickAPic
from training.data.preferences import Preferences, read_preferences

ACCOUNTED = (
    "incomplete",
    "unlabelled",
    "ties",
    "contradictions",
    "duplicates",
    "reversed",
    "of_small_users",
    "pairs",
)


def decided(user: int, count: int = 4) -> list[Row]:
    return [row(user, "a boat", f"{user}-{n}a", f"{user}-{n}b", n % 2) for n in range(count)]


def read(folder: Path, rows: list[Row]) -> Preferences:
    return read_preferences(PickAPic([write(folder / "train.parquet", rows)]), batch_rows=5)


def contents(preferences: Preferences) -> set[tuple[str, str, str, str, str]]:
    """Of each pair: user, caption, first and second picture, and the winner."""
    found = set()
    for pair in range(len(preferences)):
        shown = [preferences.pictures[n] for n in preferences.picture_P2[pair]]
        found.add(
            (
                preferences.users[preferences.user_P[pair]],
                preferences.captions[preferences.caption_P[pair]],
                *shown,
                shown[preferences.preferred_P[pair]],
            )
        )
    assert len(found) == len(preferences)
    return found  # type: ignore[return-value]


def test_decided_pairs_keep_their_order_their_winner_and_their_row(tmp_path: Path) -> None:
    preferences = read(tmp_path, decided(7))
    assert preferences.users == ["7"]
    assert preferences.captions == ["a boat"]
    assert [preferences.pictures[n] for n in preferences.picture_P2[1]] == ["7-1a", "7-1b"]
    assert preferences.preferred_P.tolist() == [0, 1, 0, 1]
    assert preferences.row_P.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("ties", {"are_different": False}),
        ("ties", {"label_0": 0.5, "label_1": 0.5, "best_image_uid": "tie"}),
        ("ties", {"label_0": 0.5, "label_1": 1.0}),
        ("ties", {"are_different": False, "label_0": 0.5, "label_1": 0.5}),
        ("unlabelled", {"has_label": False}),
        ("unlabelled", {"has_label": None}),
        ("unlabelled", {"label_1": None}),
        ("unlabelled", {"label_0": float("nan")}),
        ("unlabelled", {"are_different": None}),
        ("contradictions", {"label_0": 1.0, "label_1": 1.0}),
        ("contradictions", {"label_0": 0.0, "label_1": 0.0}),
        ("contradictions", {"label_0": -1.0, "label_1": 1.0}),
        ("contradictions", {"best_image_uid": "x"}),
        ("contradictions", {"best_image_uid": "z"}),
        ("contradictions", {"best_image_uid": None}),
        ("contradictions", {"image_0_uid": "y"}),
        ("incomplete", {"user_id": None}),
        ("incomplete", {"caption": None}),
        ("incomplete", {"image_0_uid": None}),
    ],
)
def test_what_is_not_decided_is_left_out_and_counted(
    tmp_path: Path, reason: str, changes: dict[str, Any]
) -> None:
    preferences = read(tmp_path, [*decided(7), row(7, "a boat", "x", "y", 1) | changes])
    assert len(preferences) == 4
    assert preferences.counts.pictures == 8
    assert getattr(preferences.counts, reason) == 1


def test_the_same_answer_again_counts_once(tmp_path: Path) -> None:
    again = [row(7, "a boat", "7-0b", "7-0a", 1), *decided(7)[1:2]]
    preferences = read(tmp_path, decided(7) + again)
    assert len(preferences) == 4
    assert preferences.counts.duplicates == 2


def test_opposite_answers_to_the_same_pictures_are_no_answer(tmp_path: Path) -> None:
    preferences = read(tmp_path, [*decided(7, 5), row(7, "a boat", "7-0a", "7-0b", 1)])
    assert preferences.counts.reversed == 2
    assert "7-0a" not in preferences.pictures
    assert len(preferences) == 4


def test_another_persons_answer_to_the_same_pictures_is_their_own(tmp_path: Path) -> None:
    theirs = [row(8, "a boat", f"7-{n}a", f"7-{n}b", 1) for n in range(4)]
    preferences = read(tmp_path, decided(7) + theirs)
    assert len(preferences) == 8
    assert preferences.counts.pictures == 8


def test_people_with_fewer_than_four_decided_pairs_are_left_out_and_counted(
    tmp_path: Path,
) -> None:
    few = [*decided(8, 3), row(8, "a boat", "p", "q", 0, has_label=False)]
    preferences = read(tmp_path, decided(7) + few)
    assert preferences.users == ["7"]
    assert (preferences.counts.small_users, preferences.counts.of_small_users) == (1, 3)
    with pytest.raises(ValueError, match="none of 3 rows"):
        read(tmp_path / "few", decided(8, 3))


ANY_ROW = st.builds(
    row,
    st.integers(0, 2),
    st.sampled_from(["a boat", "a tree"]),
    st.sampled_from("abcd"),
    st.sampled_from("abcdef"),
    st.integers(0, 1),
    are_different=st.sampled_from([True, True, True, False, None]),
    has_label=st.sampled_from([True, True, True, False, None]),
    label_0=st.sampled_from([0.0, 1.0, 0.0, 1.0, 0.5, None]),
    label_1=st.sampled_from([0.0, 1.0, 0.0, 1.0, 0.5, None]),
    jpg_0=st.just(b"0"),
    jpg_1=st.just(b"1"),
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(ANY_ROW, max_size=40), shuffle=st.randoms(use_true_random=False))
def test_every_row_is_accounted_for_and_their_order_does_not_matter(
    tmp_path: Path, rows: list[Row], shuffle: random.Random
) -> None:
    rows = rows + decided(9)
    preferences = read(tmp_path, rows)
    counts = preferences.counts.to_dict()
    assert sum(counts[name] for name in ACCOUNTED) == counts["rows"] == len(rows)
    clear = {
        (str(r["user_id"]), r["caption"], r["image_0_uid"], r["image_1_uid"], r["best_image_uid"])
        for r in rows
        if r["are_different"] and r["has_label"] and {r["label_0"], r["label_1"]} == {0.0, 1.0}
    }
    assert contents(preferences) <= clear
    shuffled = list(rows)
    shuffle.shuffle(shuffled)
    other = read(tmp_path, shuffled)
    assert contents(other) == contents(preferences)
    assert other.counts == preferences.counts
