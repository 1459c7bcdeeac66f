"""Figure 6: who is painted for, from what, who judges, and what becomes of the verdicts."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ppd_model.files.artifact import save_artifact
from ppd_model.nets.stage_c import adapter_spec
from ppd_model.presets import get_preset
from ppd_model.types import Generated, ImageRequest
from tests.forked_workers import run_forked
from tests.stopped_jobs import STATUS, stop, stop_now, stops
from training.data.dataset import read_profiles
from training.jobs.configuration import read_configuration
from training.judges import verdicts as verdicts_module
from training.judges.judge import Question, tally
from training.judges.known_choices import KnownChoice, KnownPair
from training.judges.taste import TasteJudge
from training.precompute.processes import Worker
from training.precompute.source_plan import config_of
from training.win_rates import __main__ as win_rates_module
from training.win_rates import methods, user_features
from training.win_rates.__main__ import format_table, win_rates
from training.win_rates.judging import share_won
from training.win_rates.methods import Task, readable_people
from training.win_rates.user_features import FeaturesOfPeople
from training.win_rates.win_rates_config import SPLITS, WinRatesConfig
from training.world.truth import GroundTruth

MINI = get_preset("mini")
CONFIGS = Path(__file__).parents[3] / "training" / "configs"
FEATURES = {"estimate": "posterior", "truth": "taste", "alike": "none"}


class FakePipeline:
    """Paints grey, as light as the first number of the embedding says; the seed adds texture."""

    preset = MINI
    model_id = "fake-model"

    def __init__(self) -> None:
        self.painted: list[ImageRequest] = []

    def use_adapter(self, path: Path) -> None:
        assert path.exists()

    def generate(self, made: Sequence[ImageRequest]) -> list[Generated]:
        self.painted += made
        return [Generated(picture(request), request.seed, 0, 0) for request in made]


def picture(request: ImageRequest) -> np.ndarray:
    light = 0 if request.user_emb_D is None else 60 * np.clip(request.user_emb_D[0], -1, 1)
    texture = np.random.default_rng(request.seed).integers(-30, 30, (128, 128, 3))
    return np.clip(120 + light + texture, 0, 255).astype(np.uint8)


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    fake = FakePipeline()
    monkeypatch.setattr(win_rates_module.Pipeline, "load", lambda *_, **__: fake)
    return fake


@pytest.fixture
def config(precomputed: Path, tmp_path: Path) -> WinRatesConfig:
    adapters = {name: tmp_path / f"{name}.safetensors" for name in FEATURES}
    for name, features in FEATURES.items():
        spec = adapter_spec(MINI, encoder_id=features, user=features)
        save_artifact(adapters[name], {"x": torch.zeros(1)}, spec)
    return WinRatesConfig(
        judge="taste",
        data=precomputed,
        out=tmp_path / "out",
        adapters=adapters,
        prompts=2,
        batch=3,
        another=False,
    )


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def requests_of(config: WinRatesConfig, pipeline: FakePipeline) -> list[list[ImageRequest]]:
    """What each method painted."""
    count = len(pipeline.painted) // 4
    return [pipeline.painted[n * count : (n + 1) * count] for n in range(4)]


def test_every_method_paints_the_same_for_each_person_and_tells_it_what_it_learnt(
    config: WinRatesConfig, pipeline: FakePipeline
) -> None:
    report = win_rates(config)
    lines = (config.out / "verdicts-taste.jsonl").read_text().splitlines()
    verdicts = [json.loads(line) for line in lines]
    count = report["pictures_of_each"]
    tasks = [[v["user"], v["prompt"], v["seed"]] for v in verdicts[:count]]
    assert count > sum(report["people"].values())
    assert len(verdicts) == 5 * count
    assert 0 < report["people"]["unseen_users"] < len(read_profiles(config.data))
    rows = requests_of(config, pipeline)
    assert len(pipeline.painted) == 4 * count
    for row in rows:
        assert [[request.prompt, request.seed] for request in row] == [task[1:] for task in tasks]
    assert all(request.user_emb_D is None for request in rows[0])
    truth = GroundTruth.load(config_of(config.data).truth or Path())
    for (user, *_), estimate, told, alike in zip(tasks, *rows[1:], strict=True):
        assert estimate.user_emb_D is not None
        assert told.user_emb_D is not None
        assert alike.user_emb_D is not None
        taste_L = truth.taste(user)
        assert np.array_equal(told.user_emb_D[: len(taste_L)], taste_L.astype(np.float32))
        assert not told.user_emb_D[len(taste_L) :].any()
        assert not np.array_equal(estimate.user_emb_D, told.user_emb_D)
        assert (alike.user_emb_D == 1).all()
    assert set(report["wins"]) == {
        "estimate over base",
        "truth over base",
        "alike over base",
        "estimate over truth",
        "estimate over alike",
    }
    for rates in report["wins"].values():
        both = rates["seen_users"]["asked"] + rates["unseen_users"]["asked"]
        assert rates["all"]["asked"] == both == count
        assert rates["all"]["inconsistent"] == 0  # a taste does not follow the order
    # The judge is measured on the same people.
    accuracy = report["judge"]["accuracy"]
    assert {split: len(one["right"]) for split, one in accuracy.items()} == report["people"]
    assert (config.out / "win-rates-taste.png").stat().st_size > 1000
    assert json.loads((config.out / "report-taste.json").read_text())["wins"] == report["wins"]


def test_everybody_is_painted_from_anothers_profile_too(
    config: WinRatesConfig, pipeline: FakePipeline
) -> None:
    only = {"estimate": config.adapters["estimate"]}
    report = win_rates(config.model_copy(update={"another": True, "adapters": only}))
    count = report["pictures_of_each"]
    own, another = pipeline.painted[count : 2 * count], pipeline.painted[2 * count :]
    assert [r.seed for r in own] == [r.seed for r in another]
    assert set(report["wins"]) == {
        "estimate over base",
        "another over base",
        "estimate over another",
    }
    lines = (config.out / "verdicts-taste.jsonl").read_text().splitlines()
    verdicts = [json.loads(line) for line in lines]
    people = [verdict["user"] for verdict in verdicts[:count]]
    seen = report["wins"]["another over base"]["seen_users"]["asked"]
    told = {
        user: request.user_emb_D.tobytes()
        for user, request in zip(people, own, strict=True)
        if request.user_emb_D is not None
    }
    for split in (slice(seen), slice(seen, None)):
        within = {told[user] for user in people[split]}
        for user, request in zip(people[split], another[split], strict=True):
            assert request.user_emb_D is not None
            assert request.user_emb_D.tobytes() in within - {told[user]}


def test_who_is_told_nothing_has_no_other(config: WinRatesConfig, pipeline: FakePipeline) -> None:
    alike = {"alike": config.adapters["alike"]}
    with pytest.raises(ValueError, match="set another to false"):
        win_rates(config.model_copy(update={"another": True, "adapters": alike}))


def test_an_interrupted_run_goes_on(
    config: WinRatesConfig, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = win_rates(config)
    painted = len(pipeline.painted)
    (config.out / "pictures" / "truth-00001.safetensors").unlink()
    path = config.out / "verdicts-taste.jsonl"
    verdicts = path.read_text().splitlines(keepends=True)
    path.write_text("".join(verdicts[:-3]) + verdicts[-3][:20])  # killed within a line
    asked: list[Any] = []
    ask_parts = verdicts_module.ask_parts
    monkeypatch.setattr(
        verdicts_module,
        "ask_parts",
        lambda parts, **options: ask_parts((asked.append(p) or p for p in parts), **options),
    )
    again = win_rates(config, resume=True)
    assert len(pipeline.painted) == painted + config.batch
    assert len(asked) == 3
    assert again["wins"] == report["wins"]
    assert path.read_text().splitlines(keepends=True) == verdicts
    with pytest.raises(ValueError, match="already holds"):
        win_rates(config)
    for change in ({"strength": 0.5}, {"batch": 2}, {"answers": "quiz"}):
        with pytest.raises(ValueError, match="something else"):
            win_rates(config.model_copy(update=change), resume=True)
    assert json.loads((config.out / "resolved.json").read_text())["config"]["batch"] == config.batch


WRITTEN = ("pictures/*", "verdicts-*", "known-choices-*", "report-*.json")


def bytes_in(folder: Path) -> dict[str, bytes]:
    """What a run wrote but for plots, and for the configuration, which names the folder."""
    paths = [path for pattern in WRITTEN for path in folder.glob(pattern)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def short(config: WinRatesConfig, out: Path) -> WinRatesConfig:
    only = {"estimate": config.adapters["estimate"]}
    return config.model_copy(update={"out": out, "adapters": only, "prompts": 1})


def test_two_processes_write_what_one_writes(
    config: WinRatesConfig, pipeline: FakePipeline, tmp_path: Path
) -> None:
    one, two = short(config, tmp_path / "one"), short(config, tmp_path / "two")
    win_rates(one)
    run_forked(lambda worker: win_rates(two, worker=worker))
    assert bytes_in(two.out) == bytes_in(one.out)
    assert len(pipeline.painted) == 2 * win_rates(one, resume=True)["pictures_of_each"]


@pytest.mark.parametrize("how", STATUS)
def test_painting_that_is_stopped_goes_on_to_the_same_bytes(
    config: WinRatesConfig, pipeline: FakePipeline, tmp_path: Path, how: str
) -> None:
    whole, broken = short(config, tmp_path / "whole"), short(config, tmp_path / "broken")
    win_rates(whole)
    stop(lambda: win_rates(broken), how, 3)
    assert list((broken.out / "pictures").glob("*.safetensors"))
    win_rates(broken, resume=True)
    assert bytes_in(broken.out) == bytes_in(whole.out)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("how", STATUS)
def test_judging_that_is_stopped_goes_on_to_the_same_bytes_with_any_number_of_processes(
    config: WinRatesConfig,
    pipeline: FakePipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    processes: int,
) -> None:
    whole, broken = short(config, tmp_path / "whole"), short(config, tmp_path / "broken")
    known = sum(win_rates(whole)["people"].values())
    prefer, asked = TasteJudge.prefer, 0

    def stopping(judge: TasteJudge, question: Question) -> int | None:
        nonlocal asked
        asked += 1
        if asked == 2 * known + 5:  # each is asked in both orders; two verdicts have come
            stop_now(how)
        return prefer(judge, question)

    def stopped() -> None:
        TasteJudge.prefer = stopping  # type: ignore[method-assign]
        win_rates(broken)

    stops(stopped, how)
    parts = list(broken.out.glob("verdicts-taste.*.jsonl"))
    assert [path.name for path in parts] == ["verdicts-taste.0.jsonl"]
    assert len(parts[0].read_text().splitlines()) in (1, 2)
    if processes == 1:
        win_rates(broken, resume=True)
    else:
        run_forked(lambda worker: win_rates(broken, resume=True, worker=worker), processes)
    assert bytes_in(broken.out) == bytes_in(whole.out)


def test_each_process_computes_on_its_own_device(config: WinRatesConfig) -> None:
    assert config.of_process(Worker(1, 2, torch.device("cuda", 1))).device == "cuda:1"
    assert config.of_process(Worker(0, 1, torch.device("cuda", 0))).device == config.device


def test_another_quiz_is_another_run(
    config: WinRatesConfig, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config.model_copy(update={"answers": "quiz"})
    report = win_rates(asked)
    assert report["answers"] == "quiz"
    told = FeaturesOfPeople(
        config.data, SPLITS, [readable_people(config, "seen_users")[0].user], "quiz", "mini", None
    ).of("posterior", 128)
    count = report["pictures_of_each"]
    assert any(np.array_equal(r.user_emb_D, told[0]) for r in pipeline.painted[count : 2 * count])
    monkeypatch.setattr(user_features, "seed_of", lambda user_id: 1)
    with pytest.raises(ValueError, match="something else"):
        win_rates(asked, resume=True)


def test_people_whom_the_vlm_could_not_read_are_left_out(
    config: WinRatesConfig, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles = read_profiles(config.data)
    unseen = [person for person in profiles if person["unseen"]]
    lost, later = unseen[0]["user_id"], unseen[1]["user_id"]
    second = {"set": 1, "reason": "too long"}
    kept = [
        person | ({"failed": [second]} if person["user_id"] == later else {})
        for person in profiles
        if person["user_id"] != lost
    ]
    everybody = {one.user for one in readable_people(config, "unseen_users")}
    monkeypatch.setattr(methods, "read_profiles", lambda _: kept)
    assert {one.user for one in readable_people(config, "unseen_users")} == everybody - {lost}
    assert {lost, later} <= everybody


def test_adapters_of_others_are_refused(config: WinRatesConfig, pipeline: FakePipeline) -> None:
    path = config.adapters["estimate"]
    spec = adapter_spec(MINI, encoder_id="one_hot", user="one_hot")
    save_artifact(path, {"x": torch.zeros(1)}, spec)
    with pytest.raises(ValueError, match="trained with user 'one_hot'"):
        win_rates(config)
    save_artifact(path, {"x": torch.zeros(1)}, adapter_spec(MINI, encoder_id="b", user="vlm"))
    with pytest.raises(ValueError, match="reads embeddings of 'b'"):
        win_rates(config)
    specs = [adapter_spec(MINI, encoder_id="n", user="none", base_sha256=sha) for sha in "ab"]
    for name, spec in zip(("estimate", "truth"), specs, strict=True):
        save_artifact(config.adapters[name], {"x": torch.zeros(1)}, spec)
    with pytest.raises(ValueError, match="different base_sha256"):
        win_rates(config)
    assert pipeline.painted == []
    assert not config.out.exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"adapters": {}}, "one at least"),
        ({"adapters": {"base": "x"}}, "none called 'base'"),
        ({"adapters": {"another": "x"}}, "or 'another'"),
        ({"people": 0}, r"people\s+Input should be greater"),
        ({"batch": -1}, r"batch\s+Input should be greater"),
    ],
)
def test_nothing_to_compare_is_refused(values: dict[str, Any], message: str) -> None:
    options = {"judge": "taste", "data": "x", "out": "y", "adapters": {"a": "z"}, "prompts": 1}
    with pytest.raises(ValueError, match=message):
        WinRatesConfig.model_validate(options | values)


def test_only_consistent_verdicts_count_and_people_are_redrawn() -> None:
    pair = KnownPair("a", (b"", b""), 0)
    people = [KnownChoice(name, (pair,) * 4, pair, ("a",)) for name in "xyz"]
    tasks = [Task(person, "seen_users", "a", 0) for person in people for _ in range(2)]
    rates = share_won(tasks, ["first", "second", "first", "inconsistent", "unreadable", "first"], 0)
    assert (rates["asked"], rates["inconsistent"], rates["unreadable"]) == (6, 1, 1)
    assert rates["share"]["mean"] == 0.75
    assert (rates["share"]["count"], rates["share"]["clusters"]) == (4, 3)
    assert (rates["share_with_halves"]["mean"], rates["share_with_halves"]["count"]) == (0.7, 5)
    assert share_won(tasks[:2], ["first", "first"], 0)["share"] is None


def test_the_table_says_beside_the_share_what_inconsistent_verdicts_would_make_of_it() -> None:
    pair = KnownPair("a", (b"", b""), 0)
    people = [KnownChoice(name, (pair,) * 4, pair, ("a",)) for name in "xyzw"]
    tasks = [Task(person, "seen_users", "a", 0) for person in people]
    rates = share_won(tasks, ["first", "first", "inconsistent", "inconsistent"], 0)
    known = tally(["first", "second"], [0, 0])
    report = {
        "judge": {"accuracy": dict.fromkeys(SPLITS, known)},
        "wins": {"ppd over base": dict.fromkeys((*SPLITS, "all"), rates)},
    }
    judge, won, halves = [line for line in format_table(report).splitlines() if "%" in line]
    assert "the judge is right" in judge
    assert "ppd over base |" in won
    assert "100.0%" in won
    assert "(2)" in won
    assert "ppd over base, inconsistent as one half" in halves
    assert "75.0%" in halves


@pytest.mark.parametrize("name", ["mini_win_rates", "mini_win_rates_answers"])
def test_the_configurations_of_mini_are_read(name: str) -> None:
    config = read_configuration(WinRatesConfig, CONFIGS / f"{name}.yaml", {})
    assert next(iter(config.adapters)) == "ppd"
