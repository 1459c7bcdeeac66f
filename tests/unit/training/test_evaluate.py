"""The measurement itself, on a model whose behaviour is known.

Fakes: a picture carries its looks and content in its first pixels; the encoder reads a taste from
the choices; the pipeline adds a share of the embedding to the looks of its picture.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppd_model.pipeline import Pipeline
from ppd_model.presets import get_preset
from ppd_model.types import Generated, ImageRequest, LabelledPair
from ppd_model.user_encoder import EncodedUser
from training.evaluate import __main__ as module
from training.evaluate.__main__ import evaluate
from training.evaluate.evaluate_config import EvaluateConfig
from training.quiz import quizzes
from training.world.captions import SETTING_PHRASES, SUBJECT_WORDS
from training.world.scene import LOOKS, SETTINGS, SUBJECTS, Scene

L = len(LOOKS)


def picture(looks_L: np.ndarray, content: int) -> np.ndarray:
    image = np.zeros((128, 128, 3), np.uint8)
    image[0, :L, 0] = np.clip(looks_L * 25 + 128, 0, 255).round()
    image[1, 0, 0] = content
    return image


def read_looks(images: np.ndarray) -> np.ndarray:
    return (images[:, 0, :L, 0].astype(np.float32) - 128) / 25


def content_of(prompt: str) -> int:
    words = set(prompt.split())
    subject = next(i for i, name in enumerate(SUBJECTS) if words & set(SUBJECT_WORDS[name]))
    setting = next(
        i for i, s in enumerate(SETTINGS) if any(p in prompt for p in SETTING_PHRASES[s])
    )
    return subject * len(SETTINGS) + setting


class FakeJudge(module.Judge):
    def __init__(self) -> None:
        self.classifier = self  # type: ignore[assignment]

    def looks(self, images: np.ndarray, content_B: np.ndarray) -> np.ndarray:
        return read_looks(images)

    def name(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return divmod(images[:, 1, 0, 0].astype(np.int64), len(SETTINGS))


class FakeEncoder:
    encoder_version = "fake"

    def encode_batch(
        self, many: Sequence[Sequence[LabelledPair]], *, seed: int
    ) -> list[EncodedUser]:
        return [self.encode(choices) for choices in many]

    def encode(self, choices: Sequence[LabelledPair]) -> EncodedUser:
        taste_L = np.zeros(L, np.float32)
        for choice in choices:
            looks_2L = read_looks(np.stack([choice.image_0, choice.image_1]))
            taste_L += (looks_2L[1] - looks_2L[0]) * (1 if choice.preferred else -1)
        emb_D = np.zeros(128, np.float32)
        emb_D[:L] = taste_L / np.linalg.norm(taste_L)
        return EncodedUser("a profile", "", emb_D, 0.5, [], [])


class FakePipeline:
    model_id, adapter_version, encoder_id = "fake", "fake", "fake"
    preset = get_preset("mini")
    set_personalize_below = Pipeline.set_personalize_below

    def __init__(self, moves_L: np.ndarray, breaks_content: bool = False) -> None:
        self.moves_L = moves_L
        self.breaks_content = breaks_content

    def generate(self, requests: Sequence[ImageRequest]) -> list[Generated]:
        return [Generated(self.paint(one), one.seed, 0.0, 0.0) for one in requests]

    def paint(self, request: ImageRequest) -> np.ndarray:
        looks_L = np.random.default_rng(request.seed).normal(size=L)
        content = content_of(request.prompt)
        if request.user_emb_D is not None:
            looks_L = looks_L + self.moves_L * request.user_emb_D[:L]
            content = 0 if self.breaks_content else content
        return picture(looks_L, content)


def run(
    pipeline: FakePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, people: int = 48
) -> dict[str, Any]:
    def paint(scene: Scene) -> np.ndarray:
        return picture(scene.looks_L * 2, scene.content)

    monkeypatch.setattr(quizzes, "paint", paint)
    monkeypatch.setattr(module.Judge, "load", lambda *_: FakeJudge())
    monkeypatch.setattr(module.UserEncoder, "load", lambda *_, **__: FakeEncoder())
    monkeypatch.setattr(Pipeline, "load", lambda *_, **__: pipeline)
    config = EvaluateConfig(
        out=tmp_path,
        people=people,
        bound_people=people,
        one_look_quizzes=2,
        one_look_prompts=1,
        content_repeats=1,
        population_samples=2000,
        threads=1,
    )
    return evaluate(config)


def row(report: dict[str, Any], what: str) -> dict[str, Any]:
    return next(row for row in report["table"] if what in row["what"])


def test_a_model_that_follows_the_person_wins_and_the_control_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = run(FakePipeline(np.full(L, 2.0)), tmp_path, monkeypatch)
    assert report["wins"]["own"]["mean"] > 0.85
    assert report["wins"]["control"]["mean"] == pytest.approx(0.5, abs=0.12)
    assert report["wins"]["own_over_others"]["low"] > 0.6
    assert report["wins"]["gain_sd"]["mean"] > 0.5
    assert report["one_look"]["count"] == L
    assert report["content"]["kept_ratio"] == 1.0
    assert all(entry["met"] for entry in report["table"])
    assert json.loads((tmp_path / "report.json").read_text())["wins"] == report["wins"]
    page = (tmp_path / "index.html").read_text()
    assert "a profile" in page
    assert row(report, "wins")["measured"] in page


def test_a_model_that_ignores_the_person_wins_half_and_moves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = run(FakePipeline(np.zeros(L)), tmp_path, monkeypatch, people=8)
    assert report["wins"]["own"]["mean"] == 0.5
    assert report["one_look"]["count"] == 0
    assert not row(report, "wins")["met"]
    assert "**no**" in module.format_table(report["table"])


def test_a_look_that_does_not_move_is_not_counted_and_lost_content_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves_L = np.where(np.arange(L) < 3, 2.0, 0.0)
    report = run(FakePipeline(moves_L, breaks_content=True), tmp_path, monkeypatch, people=8)
    assert report["one_look"]["moved"] == list(LOOKS[:3])
    slopes = report["wins"]["slope_per_look"]
    assert max(abs(slopes[name]) for name in LOOKS[3:]) < 1e-3
    assert report["content"]["base"]["both"] == 1.0
    assert report["content"]["kept_ratio"] < 0.2
    assert not row(report, "content, personalised")["met"]


def test_a_model_that_does_the_same_for_everyone_gains_nothing_in_the_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SameForAll(FakePipeline):
        def paint(self, request: ImageRequest) -> np.ndarray:
            looks_L = np.random.default_rng(request.seed).normal(size=L)
            return picture(looks_L + (request.user_emb_D is not None), content_of(request.prompt))

    report = run(SameForAll(np.zeros(L)), tmp_path, monkeypatch)
    own, control = report["wins"]["own"], report["wins"]["control"]
    assert own["mean"] == pytest.approx(0.5, abs=0.2)
    assert own["mean"] == pytest.approx(control["mean"], abs=0.05)
    assert report["wins"]["own_over_others"]["mean"] == 0.5
    assert report["one_look"]["count"] == 0


def test_another_split_meets_other_prompts_and_seeds(tmp_path: Path) -> None:
    tuned, reported = (
        module.group_prompts(EvaluateConfig(out=tmp_path, split=split))
        for split in ("validate", "test")
    )
    seeds = [{p.seed for group in prompts for p in group} for prompts in (tuned, reported)]
    assert len(seeds[0]) == len(seeds[1]) == 64
    assert seeds[0].isdisjoint(seeds[1])
    assert tuned[0] != reported[0]


def test_an_adapter_of_another_encoder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = FakePipeline(np.zeros(L))
    pipeline.encoder_id = "another"
    with pytest.raises(ValueError, match=r"'another'.*'fake'"):
        run(pipeline, tmp_path, monkeypatch)


@pytest.mark.parametrize(("people", "group"), [(6, 4), (4, 4), (8, 1)])
def test_groups_that_do_not_fit_are_refused(tmp_path: Path, people: int, group: int) -> None:
    with pytest.raises(ValueError, match="people"):
        evaluate(EvaluateConfig(out=tmp_path, people=people, group=group, bound_people=people))
