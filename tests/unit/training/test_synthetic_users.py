"""Synthetic users: from pairs to labels by rewards, and from adapters to Table 1 and Figure 4."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ppd_model.files.artifact import ArtifactSpec, save_artifact, sha256_of
from ppd_model.nets.text_encoder import (
    TextEncoder,
    build_text_model,
    word_tokenizer,
)
from ppd_model.pipeline import Pipeline
from ppd_model.presets import get_preset
from ppd_model.types import Generated, ImageRequest
from tests.forked_workers import run_forked
from tests.small_world import PRESET
from tests.stopped_jobs import STATUS, stop
from training.data.dataset import load_pairs
from training.data.shards import read_manifest
from training.data.splits import SPLITS, SplitRule, side_of
from training.dpo.dpo_config import DpoConfig
from training.jobs.configuration import read_configuration
from training.judges.__main__ import AccuracyConfig, measure
from training.judges.known_choices import known_choices
from training.precompute import source_plan
from training.precompute.processes import Worker
from training.synthetic_users import __main__, arms, comparison
from training.synthetic_users.arms import one_hot, weighted
from training.synthetic_users.comparison import (
    EvaluateConfig,
    InterpolateConfig,
    evaluate,
    interpolate,
    triangle_of,
)
from training.synthetic_users.pairs import relabel_command, scoring
from training.synthetic_users.pairs.generated_pairs import (
    GeneratedPairsConfig,
    draw_captions,
    generate_pairs,
)
from training.synthetic_users.pairs.pair_folder import read_source, write_folder
from training.synthetic_users.pairs.relabel import relabel
from training.synthetic_users.pairs.relabel_command import RelabelConfig, make_relabelled
from training.synthetic_users.pairs.scoring import score_source
from training.synthetic_users.pairs.source_pictures import reader_of
from training.synthetic_users.simplex import edge, follow_weights, rank_correlation, simplex
from training.synthetic_users.table_one import as_markdown, share_of_bound, table_one
from training.synthetic_users.validation_scores import ScoreConfig, score
from training.world.captions import vocabulary
from training.world.scene import CONTENTS

MINI = get_preset("mini")
REWARDS = ("red", "green", "letters")
CONFIGS = Path(__file__).parents[3] / "training" / "configs"


class Channel:
    """Likes a colour: the channel's mean, 0 to 255."""

    def __init__(self, name: str, channel: int) -> None:
        self.name, self.channel, self.identity = name, channel, f"{name}-1"
        self.calls = 0

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        self.calls += len(prompts)
        return images[..., self.channel].mean((1, 2)).astype(np.float32)


class Letters(Channel):
    """Likes blue under long captions, so that it needs picture and prompt both."""

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        blue = super().score(images, prompts)
        return blue * np.array([len(prompt) for prompt in prompts], np.float32)


def rewards() -> list[Channel]:
    return [Channel("red", 0), Channel("green", 1), Letters("letters", 2)]


# Relabelling


def test_each_user_prefers_what_their_reward_likes_and_ties_train_nobody() -> None:
    scores = np.array(
        [
            [[0, 4], [4, 0], [1, 1], [2, 2.1]],
            [[9, 0], [0, 9], [0, 9], [9, 0]],
        ],
        dtype=np.float32,
    )
    answers = relabel(scores, tie_margin=0.1, assignment="all", rng=np.random.default_rng(0))
    assert list(zip(answers.user_R, answers.pair_R, answers.preferred_R, strict=True)) == [
        (0, 0, 1),
        (0, 1, 0),
        (1, 0, 0),
        (1, 1, 1),
        (1, 2, 1),
        (1, 3, 0),
    ]
    assert answers.ties_A.tolist() == [2, 0]
    assert answers.tie_below_A[0] == pytest.approx(0.1 * np.std([4, -4, 0, 0.1]))
    exact = relabel(scores, tie_margin=0, assignment="all", rng=np.random.default_rng(0))
    assert exact.ties_A.tolist() == [1, 0]  # an exact zero never decides


def test_every_pair_has_one_user_and_every_user_the_same_chance() -> None:
    scores = np.random.default_rng(1).normal(size=(3, 3000, 2)).astype(np.float32)
    answers = relabel(scores, tie_margin=0.05, assignment="one", rng=np.random.default_rng(2))
    assert len(np.unique(answers.pair_R)) == len(answers)
    assert len(answers) + answers.ties_A.sum() == 3000
    shares = np.bincount(answers.user_R) / len(answers)
    assert np.abs(shares - 1 / 3).max() < 0.03
    again = relabel(scores, tie_margin=0.05, assignment="one", rng=np.random.default_rng(2))
    assert np.array_equal(again.user_R, answers.user_R)


@pytest.mark.parametrize(
    ("scores", "margin", "message"),
    [
        (np.full((1, 2, 2), np.nan, np.float32), 0.1, "not finite"),
        (np.zeros((1, 2, 2), np.float32), -1.0, "tie_margin"),
        (np.zeros((2, 2, 2), np.float32), 0.1, r"users \[0, 1\] are left"),
    ],
)
def test_scores_that_label_nothing_are_refused(
    scores: np.ndarray, margin: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        relabel(scores, tie_margin=margin, assignment="all", rng=np.random.default_rng(0))


# Folders


class FakePipeline:
    """Paints red, green and blue as the first three numbers of the embedding say; the seed adds a
    little. Adapters are remembered by the first letter of their folder."""

    preset = MINI
    model_id = "fake-model"
    adapter_version = "none"

    set_personalize_below = Pipeline.set_personalize_below

    def __init__(self) -> None:
        self.adapter = "none"
        tokenizer = word_tokenizer(vocabulary(), 24)
        self.text_encoder = TextEncoder(build_text_model(PRESET, tokenizer), tokenizer)
        self.painted = 0

    def use_adapter(self, path: Path) -> None:
        self.adapter = path.parent.name

    def generate(self, made: Sequence[ImageRequest]) -> list[Generated]:
        self.painted += len(made)
        return [Generated(self.picture(request), request.seed, 0, 0) for request in made]

    def picture(self, request: ImageRequest) -> np.ndarray:
        emb_D = request.user_emb_D
        strength = {"none": 0, "ppd": 60, "sft": 20, "dpo": 10}.get(self.adapter, 0)
        change = np.zeros(3) if emb_D is None else strength * emb_D[:3]
        if self.adapter.startswith("bound"):
            assert emb_D is not None
            assert (emb_D == 1).all()
            change = 80 * np.eye(3)[REWARDS.index(self.adapter.removeprefix("bound-"))]
        noise = np.random.default_rng(request.seed).integers(0, 8, 3)
        return np.broadcast_to(100 + change + noise, (16, 16, 3)).astype(np.uint8)

    def sample_latents(
        self, made: Sequence[ImageRequest], generators: Sequence[torch.Generator]
    ) -> torch.Tensor:
        return torch.stack([torch.randn(16, 8, 8, generator=each) for each in generators])

    def decode(
        self, made: Sequence[ImageRequest], latents: torch.Tensor, generators: Any
    ) -> np.ndarray:
        return np.stack([self.picture(request) for request in made])


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    fake = FakePipeline()

    def load(*_: object, **__: object) -> FakePipeline:
        fake.adapter, fake.preset = "none", MINI
        return fake

    monkeypatch.setattr(Pipeline, "load", load)
    monkeypatch.setattr(arms, "load_rewards", lambda *_: rewards())
    return fake


@dataclass
class Made:
    config: RelabelConfig
    report: dict[str, Any]


def relabel_config(out: Path, *sources: Path, **changes: Any) -> RelabelConfig:
    values = {"sources": sources, "rewards": REWARDS, "out": out, "side_px": 32, "batch": 7}
    return RelabelConfig.model_validate(values | changes)


@pytest.fixture(scope="module")
def relabelled(precomputed: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    config = relabel_config(tmp_path_factory.mktemp("relabelled") / "out", precomputed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(relabel_command, "load_rewards", lambda *_: rewards())
        return Made(config, make_relabelled(config))


def test_a_relabelled_folder_is_read_like_any_other(relabelled: Made, precomputed: Path) -> None:
    """Every pair that train_dpo reads has its user's reward higher for the chosen picture."""
    out = relabelled.config.out
    pairs = load_pairs(out, "one_hot", MINI.user_emb_dim)
    assert pairs.people == 3
    hot = pairs.batch(torch.arange(len(pairs)), torch.zeros(len(pairs))).user_emb_BD
    assert hot.sum(1).tolist() == [1.0] * len(pairs)
    assert hot.argmax(1).equal(pairs.person_P)
    source = read_source(precomputed)
    shown, _ = source.shown()
    parts = sorted((out / "scores-0").glob("scores-*.safetensors"))
    scores = torch.cat([load_file(path)["score_AX"] for path in parts], 1)
    row_of = {tuple(row): place for place, row in enumerate(shown.tolist())}
    for person, chosen, rejected, caption in zip(
        pairs.person_P, pairs.chosen_P, pairs.rejected_P, pairs.caption_P, strict=True
    ):
        better = scores[person, row_of[int(chosen), int(caption)]]
        worse = scores[person, row_of[int(rejected), int(caption)]]
        assert better > worse
    assert len(pairs) + sum(user["ties"] for user in relabelled.report["users"].values()) == len(
        source
    )
    assert set(pairs.split_P.tolist()) == {0, 1}
    one = load_pairs(precomputed, "none", 8)
    assert torch.equal(pairs.latent_NCHW[torch.arange(5)], one.latent_NCHW[torch.arange(5)])


def test_pictures_are_scored_with_their_own_captions(relabelled: Made, precomputed: Path) -> None:
    """What the rewards saw is the picture behind the latent, as it lies in the parquet files."""
    from training.precompute.source_plan import plan_of
    from training.synthetic_users.pairs.source_pictures import reader_of

    plan, source = plan_of(precomputed), read_source(precomputed)
    shown = source.shown()[0].numpy()
    rows = shown[:: len(shown) // 5]
    scores = load_file(relabelled.config.out / "scores-0" / "scores-00000.safetensors")["score_AX"]
    uids = json.loads((precomputed / "pictures-00000.json").read_text())
    assert uids[0] == plan.preferences.pictures[plan.query.picture_N[0]]
    for place, caption in rows.tolist():
        picture = next(reader_of(precomputed, 32)(np.array([place])))
        row = int(np.flatnonzero((shown == (place, caption)).all(1))[0])
        assert scores[0, row] == pytest.approx(float(picture[..., 0].mean()), rel=1e-5)
        letters = float(picture[..., 2].mean()) * len(source.captions[caption])
        assert scores[2, row] == pytest.approx(letters, rel=1e-5)


def test_scores_that_are_there_are_not_made_again(
    precomputed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[list[Channel]] = []

    def loaded(*_: Any) -> list[Channel]:
        made.append(rewards())
        return made[-1]

    monkeypatch.setattr(relabel_command, "load_rewards", loaded)
    config = relabel_config(tmp_path / "out", precomputed)
    with monkeypatch.context() as broken:
        broken.setattr(relabel_command, "write_folder", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_relabelled(config)
    with pytest.raises(ValueError, match=r"holds no manifest"):
        load_pairs(config.out, "one_hot", 8)
    make_relabelled(config)
    assert made[0][0].calls == len(read_source(precomputed).shown()[0])
    assert made[1][0].calls == 0
    with pytest.raises(ValueError, match="already holds shards"):
        make_relabelled(config)

    other = relabel_config(tmp_path / "other", precomputed)
    with monkeypatch.context() as broken:
        broken.setattr(relabel_command, "write_folder", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_relabelled(other)
    monkeypatch.setattr(relabel_command, "load_rewards", lambda *_: rewards()[:2])
    with pytest.raises(ValueError, match="made with something else: rewards"):
        make_relabelled(other.model_copy(update={"rewards": REWARDS[:2]}))


def test_a_bound_has_as_many_pairs_as_ppd(
    precomputed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relabel_command, "load_rewards", lambda *_: rewards())
    config = relabel_config(
        tmp_path / "ppd", precomputed, tie_margin=0, bounds_out=tmp_path / "bounds"
    )
    with monkeypatch.context() as broken:  # between the two folders
        broken.setattr(relabel_command, "write_folder", _first_only)
        with pytest.raises(KeyboardInterrupt):
            make_relabelled(config)
    make_relabelled(config)
    assert config.bounds_out is not None
    ppd, bounds = (load_pairs(f, "none", 8, ("train",)) for f in (config.out, config.bounds_out))
    of_each = torch.bincount(bounds.person_P).tolist()
    assert max(of_each) <= len(read_source(precomputed))
    assert min(of_each) > 0.9 * len(ppd)
    assert sum(torch.bincount(ppd.person_P).tolist()) == len(ppd)


def _first_only(out: Path, *rest: Any) -> None:
    if out.name != "bounds":
        raise KeyboardInterrupt
    write_folder(out, *rest)


def _interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("how", STATUS)
def test_scoring_that_is_stopped_goes_on_to_the_same_bytes(
    precomputed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(scoring, "ROWS_PER_PART", 7)
    source, read = read_source(precomputed), reader_of(precomputed, 32)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    score_source(source, rewards(), read, whole)
    stop(lambda: score_source(source, rewards(), read, broken), how, 2)
    score_source(source, rewards(), read, broken)
    assert read_manifest(broken)["shards"] == read_manifest(whole)["shards"]


def test_two_processes_score_what_one_scores_each_a_part(
    precomputed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "ROWS_PER_PART", 7)
    source, read = read_source(precomputed), reader_of(precomputed, 32)
    alone = score_source(source, rewards(), read, tmp_path / "alone")
    barrier = threading.Barrier(2, timeout=60)
    found: dict[int, Any] = {}

    def work(index: int) -> None:
        own = rewards()
        worker = Worker(index, 2, wait=lambda: barrier.wait() and None)
        scores_AX = score_source(source, own, read, tmp_path / "both", worker=worker)
        found[index] = (scores_AX, own[0].calls)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(scores_AX, alone) for scores_AX, _ in found.values())
    calls = [calls for _, calls in found.values()]
    assert min(calls) > 0
    assert sum(calls) == len(source.shown()[0])


def test_generated_pairs_are_relabelled_beside_others_and_never_train_unlabelled(
    precomputed: Path, tmp_path: Path, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = GeneratedPairsConfig(
        out=tmp_path / "generated",
        pairs=100,
        pairs_per_shard=40,
        validation_caption_share=0.15,
        held_out_caption_share=0.3,
        batch=16,
    )
    folder = generate_pairs(config)
    with pytest.raises(ValueError, match="no shard named people-"):
        load_pairs(folder, "none", 8)
    generated = read_source(folder)
    assert len(generated) == 100
    assert generated.picture_P2.flatten().tolist() == list(range(200))
    with pytest.raises(ValueError, match="--resume"):
        generate_pairs(config)
    assert generate_pairs(config, resume=True) == folder

    monkeypatch.setattr(relabel_command, "load_rewards", lambda *_: rewards())
    both = relabel_config(tmp_path / "both", precomputed, folder, assignment="all")
    make_relabelled(both)
    pairs = load_pairs(both.out, "one_hot", 8)
    painted = read_source(precomputed)
    assert len(pairs.latent_NCHW) == painted.pictures + 200
    assert len(pairs.text_KST) == len(painted.captions) + 100
    of_generated = pairs.chosen_P >= painted.pictures
    assert of_generated.any()
    assert of_generated.equal(pairs.rejected_P >= painted.pictures)
    assert of_generated.equal(pairs.caption_P >= len(painted.captions))
    row = int(torch.nonzero(of_generated)[0])
    own = load_file(folder / "latents-00000.safetensors")["latent_NCHW"]
    place = int(pairs.chosen_P[row]) - painted.pictures
    assert torch.equal(pairs.latent_NCHW[pairs.chosen_P[row : row + 1]][0], own[place])


def test_generated_pairs_never_use_captions_that_are_held_out() -> None:
    config = GeneratedPairsConfig(
        out=Path("unused"),
        pairs=5 * CONTENTS,
        validation_caption_share=0.2,
        held_out_caption_share=0.3,
    )
    rule = SplitRule(validation_caption_share=0.2, held_out_caption_share=0.3)
    drawn = draw_captions(config)
    assert len(drawn) == 5 * CONTENTS
    assert {split for _, split in drawn} == {0, 1}
    assert all(side_of(caption, rule) == SPLITS[split] for caption, split in drawn)


# Table 1


def test_table_one_by_hand() -> None:
    own = {
        "base": np.array([[1.0, 2, 3, 4], [0, 0, 0, 0]]),
        "ppd": np.array([[2.0, 2, 4, 3], [1, 1, 1, 1]]),
        "bound": np.array([[3.0, 4, 5, 6], [2, 2, 2, 2]]),
    }
    report = table_one(("a", "b"), own, np.random.default_rng(0))
    assert report["means"]["ppd"]["a"]["mean"] == 2.75
    assert report["wins_of_ppd_over"]["base"]["a"]["mean"] == pytest.approx((1 + 0.5 + 1 + 0) / 4)
    assert report["wins_of_ppd_over"]["bound"]["b"]["mean"] == 0
    assert "ppd" not in report["wins_of_ppd_over"]
    share = report["between_base_and_bound"]["ppd"]
    assert share["a"]["share"]["mean"] == pytest.approx(0.25 / 2)
    assert (share["b"]["share"]["mean"], share["b"]["share"]["low"]) == (0.5, 0.5)
    text = as_markdown(("a", "b"), report)
    assert "| ours (PPD) | 2.750" in text
    assert "| ours, base 0 and one-reward model 1 | 0.125" in text
    with pytest.raises(ValueError, match="no scores of ppd"):
        table_one(("a",), {"base": own["base"]}, np.random.default_rng(0))


def test_no_share_is_claimed_where_the_bound_gains_nothing() -> None:
    rng = np.random.default_rng(0)
    base, ours, noise = rng.normal(size=(3, 200))
    report = share_of_bound(base, ours, base + noise - noise.mean(), np.random.default_rng(1))
    assert report["share"] is None
    assert report["bound_gain"]["low"] <= 0
    wide = share_of_bound(base, base + 1 + noise, base + 2, np.random.default_rng(1))["share"]
    assert wide["low"] < 0.5 < wide["high"]
    assert 0 < wide["high"] - wide["low"] < 0.3


# Figure 4


def test_the_simplex_has_its_corners_and_edges() -> None:
    points = simplex(3, 4)
    assert len(points) == 15
    assert points[0] == (1, 0, 0)
    assert points[-1] == (0, 0, 1)
    assert all(sum(point) == 1 for point in points)
    way = [points[place] for place in edge(points, 0, 2)]
    assert way == [(1, 0, 0), (0.75, 0, 0.25), (0.5, 0, 0.5), (0.25, 0, 0.75), (0, 0, 1)]
    with pytest.raises(ValueError, match="two or more"):
        simplex(3, 1)


def test_rank_correlation_by_hand() -> None:
    """1 - 6 sum d^2 / (n (n^2 - 1)) with d = (0, 1, 1, 0, 0): 1 - 12 / 120."""
    weights = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    scores = np.array([[1.0, 3, 2, 4, 5], [5, 4, 3, 2, 1], [7, 7, 7, 7, 7]])
    assert rank_correlation(weights, scores).tolist() == pytest.approx([0.9, -1.0, 0.0])


def test_rewards_that_follow_their_weights_have_rho_one() -> None:
    points = simplex(3, 4)
    noise = np.random.default_rng(0).normal(0, 1e-3, (15, 3, 20))
    follows = np.array(points)[:, :, None] + noise
    report = follow_weights(("a", "b", "c"), points, follows, np.random.default_rng(1))
    assert report["mean_over_edges"]["mean"] == pytest.approx(1)
    assert set(report["edges"]) == {"a-b", "a-c", "b-c"}
    assert set(report["edges"]["a-c"]) == {"a", "c"}
    against = follow_weights(("a", "b", "c"), points, -follows, np.random.default_rng(1))
    assert against["mean_over_edges"]["mean"] == pytest.approx(-1)
    only_a = follows.copy()
    only_a[:, 1:] = 0
    some = follow_weights(("a", "b", "c"), points, only_a, np.random.default_rng(1))
    assert some["mean_over_edges"]["mean"] == pytest.approx(2 / 6)
    assert some["all_points"]["b"]["mean"] == 0


def test_the_triangle_of_pictures_has_its_corners_where_the_weights_are() -> None:
    strips = [np.full((2, 6, 3), place, np.uint8) for place in range(6)]
    sheet = triangle_of(strips, 2)
    assert sheet.shape == (6, 6, 3)
    assert sheet[0, 2:4, 0].tolist() == [0, 0]
    assert sheet[2, 1:5, 0].tolist() == [1, 1, 2, 2]
    assert sheet[4, :, 0].tolist() == [3, 3, 4, 4, 5, 5]
    assert sheet[0, 0, 0] == 255


# Commands


def adapter(folder: Path, name: str, user: str, beta: float = 0.5, **said: str) -> Path:
    path = folder / name / "adapter.safetensors"
    extra = {"user": user, "beta": str(beta), "objective": "ppd", **said}
    save_artifact(path, {"w": torch.ones(1)}, ArtifactSpec("adapter", {}, "ppd-mini-1", extra))
    return path


def evaluate_config(tmp_path: Path, relabelled: Made, **changes: Any) -> EvaluateConfig:
    values = {
        "preset": "mini",
        "out": tmp_path / "table",
        "rewards": REWARDS,
        "relabelled": relabelled.config.out,
        "ppd": adapter(tmp_path, "ppd", "one_hot"),
        "sft": adapter(tmp_path, "sft", "one_hot"),
        "diffusion_dpo": adapter(tmp_path, "dpo", "none"),
        "bounds": {name: adapter(tmp_path, f"bound-{name}", "none") for name in REWARDS},
        "first_prompts": 10,
        "batch": 4,
        "threads": 1,
    }
    return EvaluateConfig.model_validate(values | changes)


def test_evaluate_paints_every_row_for_its_own_user(
    tmp_path: Path, relabelled: Made, pipeline: FakePipeline
) -> None:
    config = evaluate_config(tmp_path, relabelled)
    report = evaluate(config)
    assert pipeline.painted == 11 * 10  # base, DPO, three of SFT, PPD and the bounds
    red = {method: value["red"]["mean"] for method, value in report["means"].items()}
    assert red["base"] == pytest.approx(103.5, abs=3)
    gains = {method: round(value - red["base"]) for method, value in red.items()}
    assert gains == {"base": 0, "diffusion_dpo": 10, "sft": 20, "ppd": 60, "bound": 80}
    own = report["every_reward_for_every_user"]["ppd"]
    assert own["red"]["red"] == pytest.approx(own["green"]["red"] + 60)
    assert report["between_base_and_bound"]["ppd"]["red"]["share"]["mean"] == pytest.approx(0.75)
    assert report["wins_of_ppd_over"]["sft"]["letters"]["mean"] == 1
    assert report["prompts"]["count"] == 10
    for name in ("report.json", "table.md", "resolved.json"):
        assert (config.out / name).stat().st_size > 0
    with Image.open(config.out / "wins.png") as image:
        assert image.width > 300


def test_an_interrupted_evaluation_goes_on_with_the_arms_it_has(
    tmp_path: Path, relabelled: Made, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = evaluate_config(tmp_path, relabelled)
    with monkeypatch.context() as broken:
        broken.setattr(comparison, "table_one", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate(config)
    painted = pipeline.painted
    with pytest.raises(ValueError, match="--resume"):
        evaluate(config)
    for key, value in {"steps": 20, "guidance_scale": 1.0, "personalize_below": 0.5}.items():
        with pytest.raises(ValueError, match=f"made with another {key}"):
            evaluate(config.model_copy(update={key: value}), resume=True)
    torch.manual_seed(1)
    retrained = adapter(tmp_path, "ppd", "one_hot", beta=0.7)
    with pytest.raises(ValueError, match="made with another adapter"):
        evaluate(config.model_copy(update={"ppd": retrained}), resume=True)
    adapter(tmp_path, "ppd", "one_hot")
    assert evaluate(config, resume=True)["means"]["base"]
    assert pipeline.painted == painted


def evaluated_bytes(config: EvaluateConfig) -> dict[str, bytes]:
    """What an evaluation wrote but for its times, its plot and the names of its folders."""
    paths = [*(config.out / "arms").iterdir(), config.out / "table.md"]
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.parametrize("how", STATUS)
def test_an_evaluation_that_is_stopped_within_an_arm_goes_on_to_the_same_bytes(
    tmp_path: Path, relabelled: Made, pipeline: FakePipeline, how: str
) -> None:
    whole = evaluate_config(tmp_path, relabelled, out=tmp_path / "whole")
    broken = evaluate_config(tmp_path, relabelled, out=tmp_path / "broken")
    evaluate(whole)
    stop(lambda: evaluate(broken), how, 5)
    assert (broken.out / "arms" / "diffusion_dpo.parts").exists()
    with pytest.raises(ValueError, match="--resume"):
        evaluate(broken)
    painted = pipeline.painted
    evaluate(broken, resume=True)
    assert evaluated_bytes(broken) == evaluated_bytes(whole)
    assert pipeline.painted == painted + 11 * 10 - 10 - 4  # the base, and a part of the second arm


def test_two_processes_evaluate_to_the_bytes_of_one(
    tmp_path: Path, relabelled: Made, pipeline: FakePipeline
) -> None:
    one = evaluate_config(tmp_path, relabelled, out=tmp_path / "one")
    two = evaluate_config(tmp_path, relabelled, out=tmp_path / "two")
    evaluate(one)
    run_forked(lambda worker: evaluate(two, worker=worker))
    assert evaluated_bytes(two) == evaluated_bytes(one)


@pytest.mark.parametrize("how", STATUS)
def test_validation_scores_that_are_stopped_go_on_to_the_same_bytes(
    tmp_path: Path, relabelled: Made, pipeline: FakePipeline, how: str
) -> None:
    config = ScoreConfig(
        preset="mini",
        adapter=adapter(tmp_path, "ppd", "one_hot", beta=0.25),
        data=relabelled.config.out,
        out=tmp_path / "scores.json",
        rewards=REWARDS,
        captions=3,
        batch=2,
        threads=1,
    )
    score(config)
    whole = config.out.read_bytes()
    config.out.unlink()
    stop(lambda: score(config), how, 3)
    with pytest.raises(ValueError, match="holds parts: pass --resume"):
        score(config)
    score(config, resume=True)
    assert config.out.read_bytes() == whole
    assert not config.out.with_suffix(".parts").exists()
    config.out.unlink()
    run_forked(lambda worker: score(config, worker=worker))
    assert config.out.read_bytes() == whole


def test_adapters_of_other_data_are_refused_but_for_the_row_that_learns_from_people(
    tmp_path: Path, relabelled: Made, pipeline: FakePipeline
) -> None:
    own = sha256_of(relabelled.config.out / "manifest.json")
    elsewhere = adapter(tmp_path, "elsewhere", "one_hot", data_sha256="another")
    with pytest.raises(ValueError, match="trained on other data"):
        evaluate(evaluate_config(tmp_path, relabelled, ppd=elsewhere))
    here = adapter(tmp_path, "here", "one_hot", data_sha256=own)
    people = adapter(tmp_path, "people", "none", data_sha256="another")
    assert evaluate(evaluate_config(tmp_path, relabelled, ppd=here, diffusion_dpo=people))


def test_adapters_in_the_wrong_row_are_refused(
    tmp_path: Path, relabelled: Made, pipeline: FakePipeline
) -> None:
    people = adapter(tmp_path, "people", "vlm")
    with pytest.raises(ValueError, match="user 'vlm', expected one_hot"):
        evaluate(evaluate_config(tmp_path, relabelled, ppd=people))
    with pytest.raises(ValueError, match="user 'vlm', expected none"):
        evaluate(evaluate_config(tmp_path, relabelled, diffusion_dpo=people))
    with pytest.raises(ValueError, match="bounds of"):
        evaluate(evaluate_config(tmp_path, relabelled, bounds={"red": people}))
    turned = ("green", "red", "letters")
    with pytest.raises(ValueError, match="was relabelled by"):
        evaluate(evaluate_config(tmp_path, relabelled, rewards=turned))
    assert pipeline.painted == 0


def test_interpolation_follows_the_weights(
    tmp_path: Path, relabelled: Made, pipeline: FakePipeline
) -> None:
    config = InterpolateConfig(
        preset="mini",
        out=tmp_path / "simplex",
        rewards=REWARDS,
        relabelled=relabelled.config.out,
        ppd=adapter(tmp_path, "ppd", "one_hot"),
        first_prompts=4,
        parts=2,
        threads=1,
    )
    report = interpolate(config)
    assert pipeline.painted == 6 * 4
    assert report["spearman"]["mean_over_edges"]["mean"] == pytest.approx(1)
    middle = next(p for p in report["points"] if p["weights"] == [0.5, 0.5, 0])
    corner = next(p for p in report["points"] if p["weights"] == [1, 0, 0])
    assert corner["mean"]["red"] - middle["mean"]["red"] == pytest.approx(30)
    for name in ("simplex.png", "edges.png", "pictures.png", "report.json"):
        assert (config.out / name).stat().st_size > 0


@pytest.mark.parametrize(("user", "red"), [("one_hot", 60), ("none", 60), ("taste", None)])
def test_validation_scores_are_of_pictures_made_for_their_user(
    tmp_path: Path, relabelled: Made, pipeline: FakePipeline, user: str, red: int | None
) -> None:
    path = adapter(tmp_path, "ppd", user, beta=0.25)
    config = ScoreConfig(
        preset="mini",
        adapter=path,
        data=relabelled.config.out,
        out=tmp_path / "scores.json",
        rewards=REWARDS,
        captions=3,
        threads=1,
    )
    record = score(config)
    assert record["beta"] == 0.25
    assert json.loads(config.out.read_text()) == record
    assert record["captions"] <= 3
    assert record["rewards"]["red"]["sd"] > 0
    expected = {"one_hot": 3, "none": 1, "taste": 1}[user] * record["captions"]
    assert pipeline.painted == expected
    if red is not None:
        assert record["rewards"]["red"]["mean"] == pytest.approx(103.5 + red, abs=4)


def test_an_embedding_of_weights_is_a_mixture_of_one_hot_ones() -> None:
    mixed = 0.25 * one_hot(0, 3, 8) + 0.75 * one_hot(2, 3, 8)
    assert np.array_equal(mixed, weighted((0.25, 0, 0.75), 8))


def test_an_unknown_command_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        __main__.main(["tabulate"])
    assert stopped.value.code == 2
    assert "pairs, relabel, score, evaluate, interpolate" in capsys.readouterr().err


def commands() -> list[Any]:
    kinds = {
        "relabel": RelabelConfig,
        "pairs": GeneratedPairsConfig,
        "evaluate": EvaluateConfig,
        "interpolate": InterpolateConfig,
        "score": ScoreConfig,
    }
    return [
        pytest.param(kind, path, id=path.stem)
        for name, kind in kinds.items()
        for path in sorted(CONFIGS.glob(f"*synthetic_{name}.yaml"))
    ]


@pytest.mark.parametrize(("kind", "path"), commands())
def test_the_shipped_configurations_are_read(kind: Any, path: Path) -> None:
    read_configuration(kind, path, {})


def test_every_command_and_every_row_of_mini_is_configured() -> None:
    for preset in ("mini", "stable_cascade"):
        for command in ("relabel", "score", "evaluate", "interpolate"):
            assert (CONFIGS / f"{preset}_synthetic_{command}.yaml").exists()
    table = read_configuration(EvaluateConfig, CONFIGS / "mini_synthetic_evaluate.yaml", {})
    rows = {
        name: read_configuration(DpoConfig, CONFIGS / f"mini_synthetic_{name}.yaml", {})
        for name in ("ppd", "sft", "dpo", *(f"bound_{reward}" for reward in table.rewards))
    }
    found = {row.output_dir / "adapter.safetensors" for row in rows.values()}
    assert found == {table.ppd, table.sft, table.diffusion_dpo, *table.bounds.values()}
    objectives = {name: (row.objective, row.user, row.only_person) for name, row in rows.items()}
    assert objectives == {
        "ppd": ("ppd", "one_hot", None),
        "sft": ("sft", "one_hot", None),
        "dpo": ("diffusion_dpo", "none", None),
        "bound_alignment": ("diffusion_dpo", "none", 0),
        "bound_warmth": ("diffusion_dpo", "none", 1),
        "bound_detail": ("diffusion_dpo", "none", 2),
    }
    told = {"output_dir", "objective", "user", "only_person", "user_dropout", "data_dir"}
    same = {json.dumps(row.model_dump(mode="json", exclude=told)) for row in rows.values()}
    assert len(same) == 1, "rows differ in nothing else"
    assert {row.data_dir for name, row in rows.items() if name != "dpo"} == {table.relabelled}


# Known choices, which judges are measured by


def test_known_choices_are_four_and_one_of_a_test_split(precomputed: Path) -> None:
    from training.precompute.source_plan import plan_of

    known = known_choices(precomputed, "unseen_users")
    assert known
    plan = plan_of(precomputed)
    names = plan.preferences.users
    unseen = {names[person.user]: person for person in plan.people if person.unseen}
    assert {one.user for one in known} <= set(unseen)
    for one in known:
        person = unseen[one.user]
        query = int(person.query_P[0])
        assert one.query.caption == plan.preferences.captions[plan.preferences.caption_P[query]]
        assert one.query.preferred == plan.preferences.preferred_P[query]
        assert query not in person.support_E4
        question = one.question()
        assert len(question.choices) == 4
        assert question.choices[0].image_0.size == question.first.size
        preferred = [plan.preferences.preferred_P[pair] for pair in person.support_E4[0]]
        assert [choice.preferred for choice in question.choices] == preferred
    assert len(known_choices(precomputed, "seen_users", 2)) == 2


def test_the_worlds_own_taste_is_asked_about_every_known_choice(
    precomputed: Path, tmp_path: Path
) -> None:
    config = AccuracyConfig(
        judge="taste", data=precomputed, split="seen_users", out=tmp_path / "accuracy.json"
    )
    report = measure(config)
    known = known_choices(precomputed, "seen_users")
    assert report["questions"] == len(known) > 2
    assert report["right"] == [one.query.preferred for one in known]
    assert report["kept"] + report["inconsistent"] + report["unreadable"] == len(known)
    assert report["inconsistent"] == 0  # a taste does not follow the order
    assert report["identity"] == "hidden taste"


def test_a_judge_of_tastes_needs_the_truth(
    precomputed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_of = source_plan.config_of
    monkeypatch.setattr(
        source_plan,
        "config_of",
        lambda folder: config_of(folder).model_copy(update={"truth": None}),
    )
    with pytest.raises(ValueError, match="without the ground truth"):
        measure(AccuracyConfig(judge="taste", data=precomputed, out=tmp_path / "accuracy.json"))
