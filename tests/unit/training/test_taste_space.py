"""From pictures and a population's choices to a pool's coordinates."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ppd_model.user_encoder import UserEncoder
from training.data.pickapic import SCHEMA
from training.taste_space import ChoiceTable, TasteSpaceConfig, choices, picture_features, run
from training.world.export import jpeg


@pytest.fixture(scope="module")
def encoder() -> UserEncoder:
    return UserEncoder.load("mini")


def picture(level: int, seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    pixels = np.clip(level + rng.integers(-20, 20, (128, 128, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def write_parquet(folder: Path, people: int, pairs: int) -> None:
    """People who prefer the lighter picture, or the darker one, by turns."""
    folder.mkdir()
    rows = []
    for person in range(people):
        for number in range(pairs):
            dark, light = picture(60, number), picture(190, 100 + number)
            uids = [f"dark-{number}", f"light-{number}"]
            best = int(person % 2 == 0)
            rows.append(
                {
                    "are_different": True,
                    "best_image_uid": uids[best],
                    "caption": f"caption {number}",
                    "has_label": True,
                    "image_0_uid": uids[0],
                    "image_1_uid": uids[1],
                    "jpg_0": jpeg(np.asarray(dark)),
                    "jpg_1": jpeg(np.asarray(light)),
                    "label_0": float(best == 0),
                    "label_1": float(best == 1),
                    "user_id": person,
                }
            )
    table = pa.Table.from_pylist(
        [{name: row.get(name) for name in SCHEMA.names} for row in rows], schema=SCHEMA
    )
    pq.write_table(table, folder / "train-00000.parquet")


def test_a_picture_has_the_same_features_alone_and_among_others(encoder: UserEncoder) -> None:
    pictures = [picture(level, level) for level in (40, 120, 200)]
    together = picture_features(encoder, pictures)
    alone = np.concatenate([picture_features(encoder, [one]) for one in pictures])
    assert together.shape == (3, encoder.model.config.vision_config.hidden_size)
    assert together == pytest.approx(alone, abs=1e-4)
    assert np.abs(together[0] - together[2]).max() > 0.1


def test_choices_keep_the_order_shown_and_each_picture_its_features(
    tmp_path: Path, encoder: UserEncoder
) -> None:
    write_parquet(tmp_path / "data", people=2, pairs=4)
    config = TasteSpaceConfig(out=tmp_path, data=str(tmp_path / "data"), people=2, pairs=3)
    table = choices(config, encoder)
    assert len(table.person_P) == 6
    assert len(table.features_NF) == len(np.unique(table.pictures_P2))
    dark = picture_features(encoder, [picture(60, 0)])[0]
    light = picture_features(encoder, [picture(190, 100)])[0]
    towards_light = table.deltas() @ (light - dark)
    assert (towards_light > 0).all()
    for person in (0, 1):
        assert len(set(table.preferred_P[table.person_P == person].tolist())) == 1
    assert set(table.preferred_P.tolist()) == {0, 1}


def test_the_job_writes_the_pools_coordinates(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data", people=6, pairs=4)
    pool = tmp_path / "pool"
    (pool / "images").mkdir(parents=True)
    pairs = []
    for number, levels in enumerate([(60, 190), (190, 60)]):
        files = [f"{number}-{side}.png" for side in "ab"]
        for file, level in zip(files, levels, strict=True):
            picture(level, level).save(pool / "images" / file)
        pairs.append(
            {
                "pair_id": f"p{number}",
                "caption": "c",
                "images": [{"file": file, "alt": ""} for file in files],
                "look_delta": [0.0],
            }
        )
    (pool / "pairs.json").write_text(json.dumps({"version": "1", "looks": ["x"], "pairs": pairs}))
    config = TasteSpaceConfig(
        out=tmp_path / "out",
        data=str(tmp_path / "data"),
        reduced=2,
        dimensions=2,
        rounds=5,
        held_out=0.34,
        pool_dir=pool,
    )
    report = run(config)
    assert report["pool_pairs"] == 2
    written = json.loads((pool / "pairs.json").read_text())
    assert written["looks"] == ["taste 1", "taste 2"]
    first, second = (np.array(pair["look_delta"]) for pair in written["pairs"])
    assert np.abs(first).max() > 0.1
    assert first @ second < 0
    back = ChoiceTable.load(tmp_path / "out" / "choices.safetensors")
    assert len(back.person_P) == 24


def test_a_table_that_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    features = np.zeros((2, 3), np.float32)
    pairs = np.array([[0, 2]])
    path = tmp_path / "table.safetensors"
    ChoiceTable(features, pairs, np.array([1]), np.array([0])).save(path)
    with pytest.raises(ValueError, match="without features"):
        ChoiceTable.load(path)
    ChoiceTable(features, np.array([[0, 1]]), np.array([2]), np.array([0])).save(path)
    with pytest.raises(ValueError, match="preferred_P"):
        ChoiceTable.load(path)


def test_nobodys_choices_are_an_error(tmp_path: Path, encoder: UserEncoder) -> None:
    with pytest.raises(ValueError, match="whose choices"):
        choices(TasteSpaceConfig(out=tmp_path), encoder)
