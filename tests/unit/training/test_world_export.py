"""The world written as Pick-a-Pic."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.fake_store import FakeStore
from training.data.pickapic import SCHEMA, PickAPic
from training.data.preferences import read_preferences
from training.world import tastes
from training.world.captions import SETTING_PHRASES, SUBJECT_WORDS
from training.world.export import ExportConfig, export, jpeg, visitors
from training.world.looks import Standardizer, measure
from training.world.painter import paint
from training.world.scene import LOOKS, SETTINGS, SUBJECTS, Scene
from training.world.store import PictureStore
from training.world.truth import GroundTruth

STORE = FakeStore()
PEOPLE = 40


def write(out: Path, **changes: Any) -> dict[str, Any]:
    config = ExportConfig.model_validate({"out": out, "users": PEOPLE, "pairs": 20} | changes)
    return export(config, cast(PictureStore, STORE), rows_per_file=400, measured=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export")
    write(out)
    return out


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, Any]]:
    paths = sorted((folder / "data").iterdir())
    assert len(paths) > 1
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def test_the_columns_are_those_of_pick_a_pic(folder: Path) -> None:
    for path in (folder / "data").iterdir():
        assert pq.read_schema(path).equals(SCHEMA)
    assert PickAPic([folder / "data"])


def test_there_are_ties_and_rows_without_labels_as_in_the_real_data(
    folder: Path, rows: list[dict[str, Any]]
) -> None:
    report = json.loads((folder / "export.json").read_text())
    ties = [row for row in rows if row["has_label"] and not row["are_different"]]
    assert 0 < len(ties) == report["ties"] < 0.1 * len(rows)
    assert all(row["label_0"] == row["label_1"] == 0.5 for row in ties)
    unlabelled = [row for row in rows if not row["has_label"]]
    assert 0 < len(unlabelled) == report["not_labelled"] < 0.1 * len(rows)
    assert all(row["label_0"] is None for row in unlabelled)
    counts = read_preferences(PickAPic([folder / "data"])).counts
    assert (counts.ties, counts.unlabelled) == (len(ties), len(unlabelled))
    assert counts.contradictions == counts.incomplete == 0
    assert counts.small_users > 0
    assert counts.users + counts.small_users == PEOPLE


def test_answers_follow_the_hidden_taste_and_pictures_the_caption(
    folder: Path, rows: list[dict[str, Any]]
) -> None:
    truth = GroundTruth.load(folder / "truth.npz")
    agreed = []
    for row in rows:
        looks = [truth.looks(row[f"image_{side}_uid"]) for side in (0, 1)]
        contents = [
            truth.content_N[truth.picture_uid_N == row[f"image_{side}_uid"]].item()
            for side in (0, 1)
        ]
        subject, setting = divmod(contents[0], len(SETTINGS))
        assert contents[0] == contents[1]
        assert any(word in row["caption"] for word in SUBJECT_WORDS[SUBJECTS[subject]])
        assert any(phrase in row["caption"] for phrase in SETTING_PHRASES[SETTINGS[setting]])
        if row["has_label"] and row["are_different"]:
            taste_L = truth.taste(str(row["user_id"]))
            gain = tastes.utility(taste_L, looks[1]) - tastes.utility(taste_L, looks[0])
            agreed.append((gain > 0) == (row["label_1"] == 1))
            winner = row["image_1_uid" if row["label_1"] else "image_0_uid"]
            assert row["best_image_uid"] == winner
    assert 0.7 < np.mean(agreed) < 1  # Bradley-Terry: mostly, not always


def test_people_type_captions_of_their_favourite_subjects(
    folder: Path, rows: list[dict[str, Any]]
) -> None:
    truth = GroundTruth.load(folder / "truth.npz")
    content_of = dict(zip(truth.picture_uid_N.tolist(), truth.content_N.tolist(), strict=True))
    assert np.allclose(truth.subject_share_US.sum(1), 1, atol=1e-5)
    assert np.sort(truth.subject_share_US)[:, -2:].sum(1).mean() > 0.5
    typed: dict[str, Counter[int]] = {}
    for row in rows:
        subject = content_of[row["image_0_uid"]] // len(SETTINGS)
        typed.setdefault(str(row["user_id"]), Counter())[subject] += 1
    expected = np.array(
        [truth.subject_share_US[u] for u, name in enumerate(truth.user_id_U) if name in typed]
    )
    found = np.array(
        [
            [typed[name][subject] / typed[name].total() for subject in range(len(SUBJECTS))]
            for name in truth.user_id_U.tolist()
            if name in typed
        ]
    )
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.6


def test_favourites_say_nothing_of_the_taste() -> None:
    crowd = visitors(300, 10, seed=0, first_person=0)
    taste_UL = np.stack([visitor.taste_L for visitor in crowd])
    share_US = np.stack([visitor.subject_share_S for visitor in crowd])
    cross = np.corrcoef(taste_UL.T, share_US.T)[: len(LOOKS), len(LOOKS) :]
    assert np.abs(cross).max() < 0.25


def test_a_picture_has_one_uid_and_its_own_bytes(folder: Path, rows: list[dict[str, Any]]) -> None:
    truth = GroundTruth.load(folder / "truth.npz")
    assert len(set(truth.picture_uid_N.tolist())) == len(truth.picture_uid_N)
    first = rows[0]
    index = int(np.flatnonzero((STORE.looks == truth.looks(first["image_0_uid"])).all(1))[0])
    shown = np.asarray(Image.open(io.BytesIO(first["jpg_0"]))).astype(int)
    assert np.abs(shown - STORE.pictures[index]).mean() < 2


def test_the_looks_hold_through_jpeg() -> None:
    standardizer = Standardizer.load(
        Path(__file__).parents[3] / "ppd_model" / "mini" / "standardizer.json"
    )
    rng = np.random.default_rng(1)
    content, change = np.array([13]), []
    for seed in range(12):
        picture = paint(Scene(2, 1, rng.uniform(-1, 1, len(LOOKS)).astype(np.float32), seed))
        after = np.asarray(Image.open(io.BytesIO(jpeg(picture))))
        raw = np.stack([measure(picture), measure(after)])
        before, measured = standardizer.apply(raw, content.repeat(2))
        change.append(measured - before)
    assert np.sqrt(np.square(change).mean()) < 0.08


def test_the_same_numbers_write_the_same_rows(tmp_path: Path, folder: Path) -> None:
    write(tmp_path, users=3)
    write(tmp_path / "again", users=3)
    one, other = (
        [pq.read_table(path) for path in sorted((out / "data").iterdir())]
        for out in (tmp_path, tmp_path / "again")
    )
    assert all(a.equals(b) for a, b in zip(one, other, strict=True))
    with pytest.raises(ValueError, match="is there already"):
        write(tmp_path, users=3)


def test_a_ground_truth_of_another_data_set_is_refused(tmp_path: Path, folder: Path) -> None:
    truth = GroundTruth.load(folder / "truth.npz")
    with pytest.raises(ValueError, match="no person '1'"):
        truth.taste("1")
    (tmp_path / "other.npz").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"other\.npz: not a ground-truth file"):
        GroundTruth.load(tmp_path / "other.npz")
