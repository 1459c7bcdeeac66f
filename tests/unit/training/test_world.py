"""The world: what is painted can be measured, captions are silent on it, tastes lean no way."""

import json
from pathlib import Path

import numpy as np
import pytest

import ppd_model
from training.world.captions import caption, vocabulary
from training.world.looks import STATISTICS, Standardizer, measure
from training.world.painter import paint
from training.world.pool import write_pool
from training.world.scene import CONTENTS, LOOKS, SETTINGS, SUBJECTS, Scene
from training.world.store import PictureStore, paint_store, scene_at
from training.world.tastes import (
    Population,
    choice_probability,
    choose,
    posterior_mean,
    single_look,
    utility,
)

SHIPPED = Path(ppd_model.__file__).parent / "mini" / "standardizer.json"
COUNT = CONTENTS * 2 * len(STATISTICS)


def scene(**looks: float) -> Scene:
    looks_L = np.array([looks.get(name, 0.0) for name in LOOKS], dtype=np.float32)
    return Scene(subject=1, setting=2, looks_L=looks_L, seed=5)


def test_a_scene_paints_the_same_picture_every_time() -> None:
    picture = paint(scene(warmth=0.5))
    assert picture.shape == (128, 128, 3)
    assert picture.dtype == np.uint8
    assert (paint(scene(warmth=0.5)) == picture).all()


@pytest.mark.parametrize("look", LOOKS)
def test_every_look_changes_the_picture(look: str) -> None:
    low, high = paint(scene(**{look: -0.9})), paint(scene(**{look: 0.9}))
    assert np.abs(low.astype(int) - high.astype(int)).mean() > 1.5


@pytest.mark.parametrize(
    ("look", "statistic"),
    [
        ("brightness", "brightness"),
        ("contrast", "contrast"),
        ("saturation", "saturation"),
        ("warmth", "warmth"),
        ("detail", "detail"),
        ("size", "size"),
        ("outline", "outline"),
        ("vignette", "vignette"),
    ],
)
def test_each_look_raises_its_own_statistic(look: str, statistic: str) -> None:
    at = STATISTICS.index(statistic)
    values = [measure(paint(scene(**{look: value})))[at] for value in (-0.9, 0.0, 0.9)]
    assert values[0] < values[1] < values[2]


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> PictureStore:
    folder = tmp_path_factory.mktemp("world")
    paint_store(folder, COUNT, seed=3, workers=2)
    return PictureStore(folder)


def test_measured_looks_follow_the_painted_ones_within_a_caption(painted: PictureStore) -> None:
    """With the shipped reading, on pictures it was not fitted on."""
    shipped = Standardizer.load(SHIPPED)
    looks = shipped.apply(painted.statistics, painted.content)
    correlation = [
        np.mean([np.corrcoef(looks[of, k], painted.looks_set[of, k])[0, 1] for of in parts])
        for k, parts in enumerate([painted.by_content()] * len(LOOKS))
    ]
    assert min(correlation) >= 0.8, dict(zip(LOOKS, np.round(correlation, 2), strict=True))


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(64, 64, 3\).*expected 128"):
        measure(np.zeros((64, 64, 3), dtype=np.uint8))


def test_captions_name_the_content_and_no_look() -> None:
    rng = np.random.default_rng(0)
    words = {w for s in range(8) for k in range(6) for w in caption(s, k, rng).split()}
    assert words <= set(vocabulary())
    looks = {"bright", "dark", "warm", "cool", "colourful", "muted", "vivid", "contrast", "detail"}
    looks |= {"big", "small", "large", "outline", "outlined", "vignette", "light", "grey"}
    assert not looks & set(vocabulary())


def test_a_content_has_many_captions() -> None:
    rng = np.random.default_rng(0)
    assert len({caption(0, 0, rng) for _ in range(300)}) > 40


def test_tastes_are_of_unit_length_and_lean_no_way() -> None:
    tastes = Population().sample(20_000, np.random.default_rng(0))
    assert np.allclose(np.linalg.norm(tastes, axis=1), 1, atol=1e-5)
    assert np.abs(tastes.mean(axis=0)).max() < 0.02


def test_the_population_has_structure() -> None:
    tastes = Population().sample(20_000, np.random.default_rng(0))
    spectrum = np.sort(np.linalg.eigvalsh(np.cov(tastes.T)))[::-1]
    assert spectrum[:4].sum() / spectrum.sum() > 0.65


def test_choice_probability_is_bradley_terry() -> None:
    taste = single_look(0, 1.0)
    brighter = np.zeros(8, np.float32)
    brighter[0] = 0.5
    # utility difference 2.0 * 0.5 = 1, and 1 / (1 + e^-1) = 0.7311
    assert utility(taste, brighter) == pytest.approx(1.0)
    assert choice_probability(taste, np.zeros(8, np.float32), brighter) == pytest.approx(
        0.7311, abs=1e-4
    )
    assert choice_probability(-taste, np.zeros(8, np.float32), brighter) == pytest.approx(
        0.2689, abs=1e-4
    )


def test_four_choices_tell_something_and_sixteen_tell_more() -> None:
    rng = np.random.default_rng(1)
    population = Population()
    prior = population.sample(20_000, rng)
    people = population.sample(60, rng)

    def mean_cosine(choices: int) -> float:
        cosines = []
        for taste in people:
            delta = rng.normal(0, 1.4, (choices, 8)).astype(np.float32)
            zero = np.zeros(8, np.float32)
            preferred = np.array([choose(taste, zero, d, rng) for d in delta])
            estimate = posterior_mean(delta, preferred, prior)
            cosines.append(estimate @ taste / np.linalg.norm(estimate))
        return float(np.mean(cosines))

    assert 0.4 < mean_cosine(4) < mean_cosine(16)


def test_the_store_holds_what_its_seed_says(painted: PictureStore) -> None:
    assert len(painted) == COUNT
    assert (painted.pictures[100] == paint(scene_at(3, 100))).all()
    assert [len(part) for part in painted.by_content()] == [COUNT // CONTENTS] * CONTENTS
    assert painted.looks.std(axis=0) == pytest.approx(np.ones(8), abs=0.02)
    assert (painted.subject[7], painted.setting[7]) == (1, 1)


def test_a_missing_store_says_how_to_paint_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"training\.world\.store"):
        PictureStore(tmp_path)


def test_the_pool_has_pairs_of_every_content_with_neutral_words(tmp_path: Path) -> None:
    shipped = Standardizer.load(SHIPPED)
    count = write_pool(tmp_path, shipped, seed=0)
    pool = json.loads((tmp_path / "pairs.json").read_text())
    assert count == len(pool["pairs"]) >= 64
    assert len({pair["caption"] for pair in pool["pairs"]}) == len(SUBJECTS) * len(SETTINGS)
    delta = np.array([pair["look_delta"] for pair in pool["pairs"]])
    assert (np.abs(delta).max(axis=1) > 0.8).all()
    alts = " ".join(image["alt"] for pair in pool["pairs"] for image in pair["images"]).lower()
    assert not {"beautiful", "ugly", "nice", "good", "bad", "best", "pretty"} & set(alts.split())
    for pair in pool["pairs"]:
        for image in pair["images"]:
            assert (tmp_path / "images" / image["file"]).stat().st_size > 500
