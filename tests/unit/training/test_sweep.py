"""A sweep trains each value once, in processes of their own, and says what came of it."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from ppd_model.files.artifact import sha256_of
from tests.tiny_training import tiny_config, tiny_parts, write_world
from training import sweep as sweep_module
from training.evaluate.evaluate_config import EvaluateConfig
from training.jobs.configuration import read_configuration, save_resolved
from training.sweep import SweepConfig, sweep

CONFIGS = Path(__file__).parents[3] / "training" / "configs"
TINY_JOB = """
import sys
from tests.tiny_training import tiny_parts
from training import reference_errors, train_dpo
from training.dpo.dpo_config import DpoConfig
from training.jobs.command_line import parse_command_line
jobs = {
    "training.train_dpo": train_dpo.train,
    "training.reference_errors": reference_errors.write_reference_errors,
}
config, resume = parse_command_line(DpoConfig, sys.argv[3:], None)
with tiny_parts():
    jobs[sys.argv[2]](config, resume)
"""


@pytest.fixture
def config(tmp_path: Path) -> SweepConfig:
    with tiny_parts():
        write_world(tmp_path / "world")
        training = tiny_config(tmp_path / "world", tmp_path / "run")
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(training.model_dump(mode="json")))
    return SweepConfig(
        train=tmp_path / "train.yaml",
        key="lr",
        values=(1e-3, 1e-2),
        overrides={"steps": 2, "validate_every": 1},
        out=tmp_path / "sweep",
        launch=(sys.executable, "-c", TINY_JOB),
        evaluate=False,
    )


def test_each_value_is_trained_once_and_measured(
    config: SweepConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = sweep(config)
    assert [run["value"] for run in report["runs"]] == list(config.values)
    for value, run in zip(config.values, report["runs"], strict=True):
        folder = config.run_dir(value)
        resolved = json.loads((folder / "resolved.json").read_text())["config"]
        assert (resolved["lr"], resolved["steps"]) == (value, 2)
        last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
        assert run["validation_accuracy"] == last["validation_accuracy"]
    assert (config.out / "sweep.png").stat().st_size > 1000
    # Nothing is trained again; another configuration is not mistaken for this one.
    nobody = SimpleNamespace(run=lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr(sweep_module, "subprocess", nobody)
    assert sweep(config)["runs"] == report["runs"]
    with pytest.raises(ValueError, match="trained with another beta"):
        sweep(config.model_copy(update={"overrides": config.overrides | {"beta": 0.25}}))


def test_reference_errors_are_computed_once_for_all_values(
    config: SweepConfig, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cached = config.model_copy(
        update={"key": "beta", "overrides": config.overrides | {"reference": "cached"}}
    )
    report = sweep(cached)
    jobs = re.findall(r"-m (training\.\w+) ", capfd.readouterr().out)
    assert jobs == ["training.reference_errors", "training.train_dpo", "training.train_dpo"]
    folder = config.out / "reference_errors"
    for value in cached.values:
        resolved = json.loads((cached.run_dir(value) / "resolved.json").read_text())["config"]
        assert (resolved["reference"], resolved["reference_dir"]) == ("cached", str(folder))
    nobody = SimpleNamespace(run=lambda *_, **__: pytest.fail("computed"))
    monkeypatch.setattr(sweep_module, "subprocess", nobody)
    assert sweep(cached)["runs"] == report["runs"]


@pytest.mark.parametrize(("key", "values"), [("draws_seed", (0, 1)), ("max_time", (0.8, 0.9))])
def test_values_that_need_reference_errors_of_their_own_are_refused(
    config: SweepConfig, key: str, values: tuple[Any, ...]
) -> None:
    overrides = config.overrides | {"reference": "cached"}
    with pytest.raises(ValueError, match=f"{key} of .*set reference to live"):
        sweep(config.model_copy(update={"key": key, "values": values, "overrides": overrides}))
    assert not config.out.exists()


def test_pictures_measured_otherwise_are_not_taken_for_these(
    config: SweepConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[EvaluateConfig] = []

    def evaluate(wanted: EvaluateConfig) -> None:
        made.append(wanted)
        save_resolved(wanted, wanted.out)
        wins = {name: {"mean": 0.6, "low": 0.5, "high": 0.7} for name in ("own", "own_over_others")}
        found = {
            "wins": wins | {"gain_sd": {"mean": 0.1}},
            "content": {"kept_of_right": None},
            "adapter_version": sha256_of(wanted.adapter or Path())[:12],
        }
        (wanted.out / "report.json").write_text(json.dumps(found))

    monkeypatch.setattr(sweep_module, "evaluate", evaluate)
    judged = config.model_copy(update={"evaluate": True})
    read_with = {"prompt_variant": "paper", "decoding": "sample"}
    manifest = json.dumps({"provenance": read_with})
    (config.training(config.values[0]).data_dir / "manifest.json").write_text(manifest)
    report = sweep(judged)
    assert [run["wins"]["mean"] for run in report["runs"]] == [0.6, 0.6]
    assert [wanted.split for wanted in made] == ["validate"] * 2
    assert {wanted.decoding for wanted in made} == {"sample"}  # as the people it was trained on
    sweep(judged)
    assert len(made) == 2
    with pytest.raises(ValueError, match="other settings or weights"):
        sweep(judged.model_copy(update={"strength": 2.0}))


def test_a_value_that_is_a_path_is_one_folder(config: SweepConfig) -> None:
    paths = config.model_copy(update={"key": "data_dir"})
    folders = [paths.run_dir(value) for value in ("runs/a", "runs/b")]
    assert [folder.parent for folder in folders] == [config.out] * 2
    assert folders[0] != folders[1]


def test_what_was_begun_goes_on(config: SweepConfig) -> None:
    report = sweep(config)
    (config.run_dir(1e-2) / "adapter.safetensors").unlink()
    assert sweep(config)["runs"] == report["runs"]  # from its checkpoint: the same last step


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"values": (1e-3,)}, "two different"),
        ({"values": (1e-3, 1e-3)}, "two different"),
        ({"values": (1e-3, "many")}, "lr: Input should be a valid number"),
        ({"key": "nonsense"}, "nonsense: Extra inputs"),
        ({"values": (1e-3, -1.0)}, "lr"),
        ({"evaluate": True, "overrides": {"user": "taste"}}, "set evaluate to false"),
    ],
)
def test_values_that_cannot_be_trained_are_refused_before_any_is(
    config: SweepConfig, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sweep(config.model_copy(update=values))
    assert not config.out.exists()


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("mini_sweep_*.yaml")))
def test_the_sweeps_of_mini_are_read(name: str) -> None:
    config = read_configuration(SweepConfig, CONFIGS / name, {})
    assert {config.training(value).preset for value in config.values} == {"mini"}
