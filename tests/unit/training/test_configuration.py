"""yaml, overrides, and what is written beside outputs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from training.content_classifier.__main__ import ClassifierConfig
from training.evaluate.evaluate_config import EvaluateConfig
from training.jobs import configuration
from training.jobs.command_line import parse_command_line
from training.jobs.configuration import (
    Configuration,
    git_commit,
    read_configuration,
    read_file,
    save_resolved,
)
from training.precompute.precompute_config import PrecomputeConfig
from training.train_dpo import DpoConfig

CONFIGS = Path(__file__).parents[3] / "training" / "configs"


class Job(Configuration):
    name: str
    steps: int = 3
    lr: float = 0.1
    parts: tuple[str, ...] = ()
    folder: Path | None = None


def test_the_command_line_overrides_the_file(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("name: a\nsteps: 5\n")
    argv = ["--config", str(tmp_path / "job.yaml"), "--steps", "7", "--parts", "[x, y]"]
    config, resume = parse_command_line(Job, [*argv, "--lr", "3e-4", "--resume"], None)
    assert config == Job(name="a", steps=7, lr=3e-4, parts=("x", "y"))
    assert resume


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("name: a\nstep: 5\n", "step"),
        ("name: a\nsteps: many\n", "steps"),
        ("steps: 5\n", "name"),
        ("- 5\n", "mapping"),
    ],
)
def test_a_wrong_file_is_refused_naming_the_key(tmp_path: Path, body: str, message: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(body)
    with pytest.raises(ValueError, match=f"job.yaml: .*{message}"):
        read_configuration(Job, path, {})


def test_a_files_variables_come_from_the_environment_or_stand_for_their_default(
    tmp_path: Path,
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("name: ${PPD_PRESET}-a\nparts: [$PPD_RUNS_DIR/b]\nfolder: $PPD_WEIGHTS_DIR\n")
    assert read_file(path, {"PPD_RUNS_DIR": "/big", "PPD_WEIGHTS_DIR": ""}) == {
        "name": "stable-cascade-1b-a",
        "parts": ["/big/b"],
        "folder": "weights",
    }
    path.write_text("name: $HOME\n")
    with pytest.raises(ValueError, match=r"job.yaml: 'HOME': variables are PPD_PRESET, "):
        read_file(path, {"HOME": "/home"})


def test_overrides_come_before_the_files_they_name_and_after_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.yaml").write_text('"big_*.yaml": {steps: 2, lr: 1.0, folder: $PPD_DEVICE}\n')
    for name in ("big_job.yaml", "other.yaml"):
        (tmp_path / name).write_text("name: a\nsteps: 5\n")
    monkeypatch.setenv("PPD_OVERRIDES", str(tmp_path / "small.yaml"))
    argv = ["--config", str(tmp_path / "big_job.yaml"), "--lr", "3.0"]
    config, _ = parse_command_line(Job, argv, None)
    assert config == Job(name="a", steps=2, lr=3.0, folder=Path("cuda"))
    assert read_configuration(Job, tmp_path / "other.yaml", {}) == Job(name="a", steps=5)
    (tmp_path / "small.yaml").write_text('"big_*.yaml": {step: 2}\n')
    with pytest.raises(ValueError, match=r"big_job.yaml: step"):
        read_configuration(Job, tmp_path / "big_job.yaml", {})


def test_a_wrong_command_line_ends_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_command_line(Job, ["--config", str(tmp_path / "none.yaml")], None)
    assert "none.yaml" in capsys.readouterr().err


def test_the_resolved_values_and_the_commit_are_kept(tmp_path: Path) -> None:
    save_resolved(Job(name="a", folder=Path("x")), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "resolved.json").read_text())
    assert written["config"]["folder"] == "x"
    assert written["config"]["steps"] == 3
    assert written["commit"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (ClassifierConfig, "mini_classifier.yaml"),
        (PrecomputeConfig, "mini_precompute.yaml"),
        (PrecomputeConfig, "pickapic_precompute.yaml"),
        (DpoConfig, "mini_dpo.yaml"),
    ],
)
def test_the_configurations_in_the_repository_are_valid(
    kind: type[Configuration], name: str
) -> None:
    assert read_configuration(kind, CONFIGS / name, {})


def test_an_evaluation_needs_only_a_preset_and_a_folder() -> None:
    argv = ["--preset", "mini", "--out", "somewhere"]
    config, _ = parse_command_line(EvaluateConfig, argv, None)
    assert (config.people, config.prompts, config.split) == (64, 4, "test")


def test_code_installed_within_anothers_repository_is_not_of_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e"]
        done = subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init")
    git("commit", "--allow-empty", "-m", "another project")
    installed = tmp_path / "site-packages" / "configuration.py"
    installed.parent.mkdir()
    installed.write_text("")
    monkeypatch.setattr(configuration, "__file__", str(installed))
    assert git_commit() == "unknown"
    git("add", ".")
    git("commit", "-m", "now its own")
    assert git_commit() == git("rev-parse", "HEAD")
