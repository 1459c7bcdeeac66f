"""Ways to personalise, compared: readers of four answers, fitted people, and the whole command."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ppd_model.files.artifact import save_artifact
from ppd_model.nets.stage_c import adapter_spec
from ppd_model.pictures.reading import KEPT, read_picture
from ppd_model.presets import get_preset
from ppd_model.types import EncodedUser, Generated, ImageRequest, LabelledPair
from training.data.dataset import load_pairs, read_profiles
from training.evaluate.painting import Prompt
from training.jobs.configuration import read_configuration
from training.jobs.shared_options import SolverOptions
from training.judges.known_choices import known_choices
from training.reports.statistics import mean_cosine, ridge_probe
from training.rewards.world_rewards import content_named
from training.rivals import __main__ as command
from training.rivals import answers as answers_module
from training.rivals import paintings
from training.rivals.__main__ import rivals
from training.rivals.answers import Answers, answers_of_data
from training.rivals.arms import READERS
from training.rivals.likes_as_words import word_requests
from training.rivals.methods import averaged, best_strength
from training.rivals.rivals_config import Arm, RivalsConfig
from training.rivals.told import cosines
from training.world.painter import paint
from training.world.scene import LOOKS, SETTINGS, Scene

MINI = get_preset("mini")
CONFIGS = Path(__file__).parents[3] / "training" / "configs"
FEATURES = 12


def mean_colours(_: object, images: Sequence[Image.Image], batch: int = 64) -> np.ndarray:
    """Stands for the vision tower."""
    return np.stack([np.asarray(image, dtype=np.float32).mean((0, 1)) for image in images])


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def population(people: int, sets: int) -> tuple[Answers, np.ndarray]:
    """Answers of people whose tastes are two directions of the features; and the tastes, E x 2."""
    rng = np.random.default_rng(5)
    taste_U2 = rng.normal(size=(people, 2)) * 3
    person_E = np.repeat(np.arange(people), sets)
    delta_E4F = rng.normal(size=(len(person_E), 4, FEATURES))
    margin_E4 = (delta_E4F[..., :2] * taste_U2[person_E][:, None]).sum(-1)
    preferred_E4 = (rng.random(margin_E4.shape) < 1 / (1 + np.exp(-margin_E4))).astype(np.int64)
    known_E = person_E < people * 3 // 4
    return Answers(delta_E4F, preferred_E4, person_E, known_E), taste_U2[person_E]


@pytest.mark.parametrize("name", list(READERS))
def test_every_reader_tells_of_people_whom_it_was_not_fitted_on(name: str) -> None:
    answers, taste_E2 = population(people=120, sets=4)
    read_ED = READERS[name].fit(answers.of_known()).read(answers)
    assert len(read_ED) == len(taste_E2)
    known_E = answers.known_E
    told_E2 = ridge_probe(read_ED[known_E], taste_E2[known_E], read_ED[~known_E])
    assert mean_cosine(told_E2, taste_E2[~known_E]) > 0.6


@pytest.mark.parametrize("name", ["pictures", "base_users"])
def test_who_answers_the_other_way_is_read_the_other_way(name: str) -> None:
    answers, _ = population(people=60, sets=2)
    reader = READERS[name].fit(answers.of_known())
    turned = Answers(answers.delta_E4F, 1 - answers.preferred_E4, answers.person_E, answers.known_E)
    assert reader.read(turned) == pytest.approx(-reader.read(answers), abs=1e-4)


@pytest.mark.parametrize("name", list(READERS))
def test_which_picture_came_first_does_not_matter(name: str) -> None:
    answers, _ = population(people=60, sets=2)
    reader = READERS[name].fit(answers.of_known())
    swapped = Answers(
        -answers.delta_E4F, 1 - answers.preferred_E4, answers.person_E, answers.known_E
    )
    assert reader.read(swapped) == pytest.approx(reader.read(answers), abs=1e-6)


def test_answers_are_those_of_the_data_in_the_order_of_its_embeddings(
    precomputed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(answers_module, "picture_features", mean_colours)
    found = answers_of_data(precomputed, encoder=None, batch=3)  # type: ignore[arg-type]
    pairs = load_pairs(precomputed, "posterior", 8, ("train", "seen_users", "unseen_users"))
    assert len(found.person_E) == len(pairs.user_emb_ED)
    people = read_profiles(precomputed)
    assert found.known_E.tolist() == [not people[row]["unseen"] for row in found.person_E]
    assert not found.known_E.all()
    sets = [each for person in people for each in person["sets"]]
    assert found.preferred_E4.tolist() == [[p["preferred"] for p in s["pairs"]] for s in sets]
    for one in known_choices(precomputed, "unseen_users"):
        person = [each["user_id"] for each in people].index(one.user)
        first_set_4F = found.delta_E4F[found.person_E == person][0]
        for delta_F, pair in zip(first_set_4F, one.support, strict=True):
            colours = mean_colours(None, [read_picture(jpeg, KEPT) for jpeg in pair.jpegs])
            assert delta_F == pytest.approx(colours[1] - colours[0], abs=1e-4)
    path = tmp_path / "answers.safetensors"
    found.save(path)
    assert Answers.load(path).delta_E4F.tolist() == found.delta_E4F.tolist()


def test_what_is_told_is_the_cosine_with_the_taste() -> None:
    said_E2 = np.array([[2.0, 0], [0, 1], [1, 1], [0, 0]])
    taste_E2 = np.array([[1.0, 0], [0, -1], [1, 0], [1, 0]])
    assert cosines(said_E2, taste_E2) == pytest.approx([1, -1, 2**-0.5, 0])


def test_likes_go_into_the_prompt_and_dislikes_into_the_negative_one() -> None:
    user = EncodedUser("", "", np.zeros(1, np.float32), 1.0, ["warm light", "detail"], ["outlines"])
    prompts = [Prompt("a fish at sea", 3, seed=11)]
    (request,) = word_requests(SolverOptions(steps=5), prompts, [user])
    assert request.prompt == "a fish at sea, warm light, detail"
    assert request.negative_prompt == "outlines"
    assert (request.seed, request.steps, request.user_emb_D) == (11, 5, None)


def test_the_strength_is_the_one_that_gains_most_of_those_that_keep_content() -> None:
    def found(gain: float, kept: float) -> dict[str, Any]:
        return {"gain_sd": {"mean": gain}, "content_kept": {"mean": kept}}

    tried = {1.0: found(0.7, 1.0), 2.0: found(0.8, 0.99), 4.0: found(0.9, 0.9)}
    assert best_strength(tried, 0.98) == 2.0
    assert best_strength(tried, 0.9) == 4.0
    assert best_strength(tried | {4.0: found(0.8, 1.0)}, 0.98) == 2.0
    assert best_strength(tried, 1.1) == 1.0


def test_seeds_of_a_method_get_one_strength_that_all_of_them_tried() -> None:
    def found(gain: float) -> dict[str, Any]:
        return {"gain_sd": {"mean": gain}, "content_kept": {"mean": 1.0}}

    tried = averaged(
        [{1.0: found(0.6), 2.0: found(0.9), 4.0: found(1.0)}, {1.0: found(0.8), 2.0: found(0.6)}]
    )
    assert list(tried) == [1.0, 2.0]
    assert tried[1.0]["gain_sd"]["mean"] == pytest.approx(0.7)
    assert best_strength(tried, 0.98) == 2.0


@pytest.mark.parametrize(
    "values",
    [{"reads": "vlm"}, {"reads": "words", "objective": "nft"}],
)
def test_an_arm_has_one_adapter_or_words(values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="adapters"):
        Arm.model_validate(values)


class FakePipeline:
    """Paints the world's own scenes, the looks as the embedding's first numbers say."""

    preset = MINI
    model_id, adapter_version = "fake-model", "none"

    def __init__(self) -> None:
        self.painted: list[ImageRequest] = []

    def use_adapter(self, path: Path) -> None:
        self.adapter_version = path.name

    def generate(self, made: Sequence[ImageRequest]) -> list[Generated]:
        self.painted += made
        return [Generated(self.picture(request), request.seed, 0, 0) for request in made]

    def picture(self, request: ImageRequest) -> np.ndarray:
        looks_L = np.zeros(len(LOOKS), dtype=np.float32)
        if request.user_emb_D is not None:
            looks_L += np.clip(request.strength * request.user_emb_D[: len(LOOKS)], -1, 1)
        subject, setting = divmod(content_named(request.prompt), len(SETTINGS))
        return paint(Scene(subject, setting, looks_L, request.seed))


class FakeEncoder:
    """Reads the four answers as nothing, and says so."""

    encoder_version = "fake"

    def encode_batch(
        self, many: Sequence[Sequence[LabelledPair]], seed: int = 0
    ) -> list[EncodedUser]:
        nothing_D = np.zeros(MINI.user_emb_dim, np.float32)
        return [EncodedUser("", "", nothing_D, 1.0, ["sun"], ["fog"]) for _ in many]


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    fake = FakePipeline()
    monkeypatch.setattr(paintings.Pipeline, "load", lambda *_, **__: fake)
    monkeypatch.setattr(command.UserEncoder, "load", lambda *_, **__: FakeEncoder())
    monkeypatch.setattr(answers_module, "picture_features", mean_colours)
    return fake


@pytest.fixture
def config(precomputed: Path, tmp_path: Path) -> RivalsConfig:
    adapters = {"bound": "best_estimate", "alike": "nobody"}
    arms: dict[str, Arm] = {}
    for name, reads in adapters.items():
        path = tmp_path / f"{name}.safetensors"
        save_artifact(path, {"x": torch.zeros(1)}, adapter_spec(MINI, encoder_id=reads, user=reads))
        arms[name] = Arm(reads=reads, adapter=path)  # type: ignore[arg-type]
    arms["words"] = Arm(reads="words")
    return RivalsConfig(
        data=precomputed,
        stage_c=Path("unread"),
        out=tmp_path / "out",
        training=CONFIGS / "mini_nft.yaml",
        training_steps=1,
        training_batch=1,
        training_lr=1e-3,
        arms=arms,
        people=6,
        prompts=2,
        validation_people=5,
        strengths=(0.5, 1.0),
        content_kept=0.5,
        batch=8,
    )


def test_all_arms_paint_the_same_for_the_same_people_and_are_compared(
    config: RivalsConfig, pipeline: FakePipeline
) -> None:
    report = rivals(config)
    assert set(report["over"]) == {
        f"{ours} over {theirs}" for ours in config.arms for theirs in config.arms if ours != theirs
    }
    last = pipeline.painted[-4 * 12 :]
    base, bound, alike, words = (last[n * 12 : (n + 1) * 12] for n in range(4))
    assert all(request.user_emb_D is None for request in base)
    for arm in (bound, alike, words):
        assert [r.seed for r in arm] == [r.seed for r in base]
        assert all(r.prompt.startswith(b.prompt) for r, b in zip(arm, base, strict=True))
    assert words[0].negative_prompt == "fog"
    assert {r.strength for r in bound} == {report["arms"]["bound"]["strength"]}
    told = np.stack([r.user_emb_D for r in bound if r.user_emb_D is not None])
    assert (told[0::2] == told[1::2]).all()
    assert len(np.unique(told, axis=0)) == config.people
    there, back = report["over"]["bound over alike"], report["over"]["alike over bound"]
    assert there["mean"] + back["mean"] == pytest.approx(1)
    assert there["clusters"] == config.people
    assert report["arms"]["bound"]["base"]["gain_sd"]["mean"] > 0.3
    assert report["arms"]["words"]["base"]["wins"]["mean"] == 0.5
    assert report["told"].keys() == {"best_estimate"}


def test_methods_of_several_seeds_are_compared_over_seeds_and_people(
    config: RivalsConfig, pipeline: FakePipeline
) -> None:
    bound, alike = config.arms["bound"], config.arms["alike"]
    arms = {
        f"{method}-{seed}": arm.model_copy(update={"method": method})
        for seed in range(2)
        for method, arm in (("bound", bound), ("alike", alike))
    }
    report = rivals(config.model_copy(update={"arms": arms}))
    told = report["methods"]["base"]
    for method, of in told.items():
        of_seeds = [report["arms"][f"{method}-{seed}"] for seed in range(2)]
        assert of["wins"]["mean"] == pytest.approx(
            np.mean([one["base"]["wins"]["mean"] for one in of_seeds])
        )
        assert len({one["strength"] for one in of_seeds}) == 1
    there = report["methods"]["over"]["bound over alike"]
    assert there["mean"] == pytest.approx(report["over"]["bound-0 over alike-0"]["mean"])
    assert there["mean"] + report["methods"]["over"]["alike over bound"]["mean"] == pytest.approx(1)
    with pytest.raises(ValueError, match="as many of each"):
        RivalsConfig.model_validate({**vars(config), "arms": arms | {"alike-1": bound}})


def test_the_command_goes_on_and_refuses_what_was_painted_otherwise(
    config: RivalsConfig, pipeline: FakePipeline
) -> None:
    report = rivals(config)
    count = len(pipeline.painted)
    assert rivals(config) == report
    assert len(pipeline.painted) == count
    assert json.loads((config.out / "report.json").read_text()) == report
    with pytest.raises(ValueError, match="painted from other requests"):
        rivals(config.model_copy(update={"guidance_scale": 2.0}))


@pytest.mark.parametrize("config_name", ["mini_rivals.yaml", "mini_losses.yaml"])
def test_the_configurations_of_mini_are_read(config_name: str) -> None:
    config = read_configuration(RivalsConfig, CONFIGS / config_name, {})
    assert next(iter(config.arms)).removeprefix("ppd_").startswith("nft")
    for name, arm in config.arms.items():
        if arm.objective is not None:
            assert config.of_training(name).objective == arm.objective
