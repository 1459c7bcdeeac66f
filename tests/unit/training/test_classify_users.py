"""Who answered: the classifier, its split and its oracles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.classify_users.__main__ import bayes_scores, ranks, run
from training.classify_users.classify_config import ClassifyConfig
from training.classify_users.peoples_sets import choose_sets, load_sets
from training.classify_users.residual_classifier import shuffle_blocks, split
from training.data.shards import ShardFolder

PEOPLE, SETS, WIDTH = 12, 10, 16


def write_folder(folder: Path, *, noise: float = 0.3, oracle: bool = True) -> Path:
    """Two shards of people whose embeddings lie around a point of each one's own."""
    rng = np.random.default_rng(0)
    shards = ShardFolder(folder, {}, resume=False)
    for number in range(2):
        people = PEOPLE // 2
        taste_UL = rng.normal(size=(people, 4)).astype(np.float32)
        center_UD = rng.normal(size=(people, WIDTH))
        person_E = np.repeat(np.arange(people), SETS)
        emb_ED = center_UD[person_E] + noise * rng.normal(size=(len(person_E), WIDTH))
        delta_E4L = rng.normal(size=(len(person_E), 4, 4)).astype(np.float32) * 3
        margin_E4 = (delta_E4L * taste_UL[person_E][:, None]).sum(-1)
        tensors = {"person_E": person_E, "user_emb_ED": emb_ED.astype(np.float32)}
        if oracle:
            tensors |= {
                "taste_UL": taste_UL,
                "support_delta_E4L": delta_E4L,
                "support_preferred_E4": (margin_E4 > 0).astype(np.int64),
            }
        shards.write(
            f"people-{number:05d}.safetensors",
            {name: torch.from_numpy(value) for name, value in tensors.items()},
        )
    shards.finish()
    return folder


def config(out: Path, data: Path, **changes: object) -> ClassifyConfig:
    values: dict[str, object] = dict(
        out=out,
        data=data,
        people=PEOPLE,
        sets=SETS,
        width=32,
        layers=2,
        epochs=30,
        lr=3e-3,
        batch=32,
    )
    return ClassifyConfig.model_validate(values | changes)


def test_people_who_differ_are_told_apart_and_the_report_says_so(tmp_path: Path) -> None:
    report = run(config(tmp_path / "out", write_folder(tmp_path / "data")))
    assert report["top"]["embedding"]["1"]["mean"] > 0.8
    assert report["chance"]["1"] == pytest.approx(1 / PEOPLE)
    assert report["sets"] == {"train_E": 72, "validation_E": 24, "test_E": 24}
    assert set(report["top"]) == {"embedding", "oracle_classifier", "oracle_bayes"}
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert (tmp_path / "out" / "top_k.png").stat().st_size > 1000


def test_embeddings_of_nothing_are_at_chance(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", noise=30.0, oracle=False)
    report = run(config(tmp_path / "out", folder, epochs=5))
    assert report["top"]["embedding"]["4"]["mean"] < 0.65
    assert set(report["top"]) == {"embedding"}


def test_the_same_seed_gives_the_same_report(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data")
    first, second = (run(config(tmp_path / name, folder, epochs=1)) for name in "ab")
    assert first["top"] == second["top"]


@given(
    sets=st.lists(st.integers(7, 12), min_size=2, max_size=5),
    folds=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_nobodys_set_is_in_two_parts_nor_tests_twice(
    sets: list[int], folds: int, seed: int
) -> None:
    person_E = np.repeat(np.arange(len(sets)), sets)
    parts = split(person_E, validation=1, test=2, folds=folds, seed=seed)
    tested: list[int] = []
    for fold in parts:
        together = np.concatenate([fold.train_E, fold.validation_E, fold.test_E])
        assert sorted(together.tolist()) == list(range(len(person_E)))
        assert set(person_E[fold.train_E]) == set(person_E[fold.test_E]) == set(person_E)
        assert np.bincount(person_E[fold.validation_E]).tolist() == [1] * len(sets)
        tested += fold.test_E.tolist()
    assert len(tested) == len(set(tested))
    assert len(parts) == folds
    assert np.bincount(person_E[parts[0].test_E]).tolist() == [2] * len(sets)


def test_too_few_sets_for_the_parts_or_the_folds_are_refused() -> None:
    person_E = np.repeat(np.arange(5), 7)
    with pytest.raises(ValueError, match="none is left to train on"):
        split(person_E, validation=4, test=3, folds=1, seed=0)
    with pytest.raises(ValueError, match="too few for 5 folds"):
        split(person_E, validation=1, test=2, folds=5, seed=0)


def test_folds_test_every_set_with_what_trained_without_it(tmp_path: Path) -> None:
    report = run(config(tmp_path / "out", write_folder(tmp_path / "data"), folds=5, epochs=8))
    assert report["folds"] == 5
    assert report["top"]["embedding"]["1"]["count"] == PEOPLE * SETS
    share = report["share_of_oracle"]["oracle_classifier"]["4"]
    top = {name: of["4"]["mean"] for name, of in report["top"].items()}
    assert top["embedding"] > 0.9  # chance is a third
    assert share["mean"] == pytest.approx(top["embedding"] / top["oracle_classifier"])
    assert share["low"] < share["mean"] < share["high"]


def test_those_with_most_readable_sets_are_kept() -> None:
    person_E = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    readable_E = np.array([True, True, True, True, True, True, False, False])
    assert choose_sets(person_E, readable_E, people=2, sets=2).tolist() == [0, 1, 3, 4]


def test_unreadable_sets_are_left_out_and_people_numbered_anew(tmp_path: Path) -> None:
    shards = ShardFolder(tmp_path, {}, resume=False)
    emb_ED = torch.ones(4, 3)
    emb_ED[1] = torch.nan
    shards.write(
        "people-00000.safetensors",
        {"user_emb_ED": emb_ED, "person_E": torch.tensor([0, 1, 2, 2])},
    )
    with pytest.raises(ValueError, match="not finished"):
        load_sets(tmp_path, 3, 5)
    shards.finish()
    sets = load_sets(tmp_path, 2, 5)
    assert sets.person_E.tolist() == [0, 1, 1]
    assert torch.isfinite(sets.user_emb_ED).all()


def test_bayes_prefers_the_taste_that_agrees_with_the_answers() -> None:
    signed_E4L = np.full((1, 4, 2), [2.0, 0.0], dtype=np.float32)
    scores = bayes_scores(signed_E4L, np.array([[1, 0], [0, 1], [-1, 0]], dtype=np.float32))
    assert scores[0].argmax() == 0
    assert scores[0, 1] == pytest.approx(4 * np.log(0.5))


def test_ties_count_one_half() -> None:
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0]], dtype=np.float32)
    assert ranks(scores, np.array([1, 1])).tolist() == [1.0, 1.0]


def test_the_order_of_answers_is_shuffled_whole() -> None:
    features = torch.arange(24.0).reshape(2, 12)
    shuffled = shuffle_blocks(features, 4, torch.Generator().manual_seed(0))
    assert not torch.equal(shuffled, features)
    for row, blocks in zip(features, shuffled.unflatten(1, (4, 3)), strict=True):
        assert sorted(blocks[:, 0].tolist()) == row[::3].tolist()
        assert torch.equal(blocks[:, 1], blocks[:, 0] + 1)
    assert shuffle_blocks(features, 1, torch.Generator()) is features
