"""What a job's command line accepts, refuses and says of itself."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

import training
from training.dpo.dpo_config import DpoConfig
from training.jobs.command_line import parse_command_line, run_command
from training.jobs.configuration import Configuration
from training.judges.__main__ import AccuracyConfig
from training.reference_errors import READ

CONFIGS = Path(__file__).parents[3] / "training" / "configs"


class Job(Configuration):
    name: str
    """Whose it is, 100 %."""
    steps: int = 3
    lr: float | None = None
    how: Literal["fast", "slow"] = "fast"
    parts: tuple[str, ...] = ()
    quick: bool = False
    files: Mapping[str, Path] = Field(default_factory=dict)
    """A file for each name."""

    def unread(self) -> set[str]:
        return {"steps"} if self.quick else set()


def parsed(*words: str) -> Job:
    return parse_command_line(Job, words, None)[0]


def refused(capsys: pytest.CaptureFixture[str], *words: str, resumable: bool = True) -> str:
    with pytest.raises(SystemExit) as stopped:
        parse_command_line(Job, words, None, resumable=resumable)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_help_shows_each_option_with_its_type_default_and_meaning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    said = " ".join(capsys.readouterr().out.split())
    assert "--name str Whose it is, 100 %. (required)" in said
    assert "--steps int (default: 3)" in said
    assert "--lr float|null (default: null)" in said
    assert "--how fast|slow (default: fast)" in said
    assert "--parts [str, ...] (default: [])" in said
    assert "--quick [bool] (default: false)" in said
    assert "--files {str: path} A file for each name. (default: {})" in said


def test_values_of_a_mapping_go_on_top_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("name: a\nfiles: {one: x, two: y}\n")
    file = ("--config", str(tmp_path / "job.yaml"))
    job = parsed(*file, "--files.two", "z", "--files.three=1")
    assert job.files == {"one": Path("x"), "two": Path("z"), "three": Path("1")}
    assert parsed(*file, "--files", '{"four": "f"}').files == {"four": Path("f")}


def test_text_that_looks_like_a_number_stays_text_where_text_is_wanted() -> None:
    assert parsed("--name", "12", "--lr", "3e-4") == Job(name="12", lr=3e-4)
    assert parsed("--name", "a", "--lr", "null", "--parts", "[x, 1e]").parts == ("x", "1e")


def test_a_flag_needs_no_value() -> None:
    assert parsed("--quick", "--name", "a").quick
    assert not parsed("--quick", "false", "--name", "a").quick


def test_a_key_may_be_given_without_its_name() -> None:
    job, _ = parse_command_line(Job, ["x", "y", "--name", "a"], None, positional="parts")
    assert job.parts == ("x", "y")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--step", "5"), "unrecognized arguments: --step 5"),
        (("--name", "a", "stray"), "unrecognized arguments: stray"),
        (("--name", "a", "--steps", "many"), "steps: Input should be a valid integer"),
        (("--steps", "5"), "name: Field required"),
        (("--name", "a", "--steps.one", "5"), "unrecognized arguments: --steps.one 5"),
        (("--name", "a", "--files.one"), "--files.one: expected a value"),
        (("--name", "a", "--quick", "--steps", "5"), "--steps: with the other values"),
        (("--config", "nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_what_is_wrong_is_one_line(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert message in refused(capsys, *words)


def test_a_file_that_is_not_yaml_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "job.yaml").write_text("name: [a\nsteps: 5\n")
    assert "job.yaml: not yaml" in refused(capsys, "--config", str(tmp_path / "job.yaml"))


def test_what_a_job_does_not_read_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "--name", "a", "--resume", resumable=False)
    assert "--resume: this job does not read it" in said
    file = ("--config", str(CONFIGS / "mini_dpo.yaml"))
    with pytest.raises(SystemExit):
        parse_command_line(
            DpoConfig, [*file, "--lr", "1"], None, unread=DpoConfig.model_fields.keys() - READ
        )
    assert "--lr: this job does not read it" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse_command_line(DpoConfig, [*file, "--draws-seed", "1"], None)
    assert "--draws_seed: with the other values" in capsys.readouterr().err
    judge = ["--judge", "taste", "--data", "x", "--out", "y", "--url", "z"]
    with pytest.raises(SystemExit):
        parse_command_line(AccuracyConfig, judge, None)
    assert "--url: with the other values" in capsys.readouterr().err


def test_a_users_error_is_a_line_and_a_fault_of_ours_keeps_its_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def of_the_user() -> None:
        parse_command_line(Job, ["--config", "nowhere.yaml"], None)

    def of_ours() -> None:
        int("three")

    with pytest.raises(SystemExit):
        run_command(of_the_user)
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(ValueError, match="three"):
        run_command(of_ours)


def test_a_job_that_refuses_its_values_ends_with_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "training.evaluate", "--people", "3", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 2
    assert done.stderr.startswith("python -m training.evaluate: error: people 3: ")
    assert done.stderr.count("\n") == 1


def kinds(of: type[Configuration]) -> Iterator[type[Configuration]]:
    for kind in of.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_every_option_of_every_job_says_what_it_means() -> None:
    for module in pkgutil.walk_packages(training.__path__, "training."):
        importlib.import_module(module.name)
    ours = {kind for kind in kinds(Configuration) if kind.__module__.startswith("training.")}
    assert len(ours) > 30
    silent = {
        f"{kind.__name__}.{key}"
        for kind in ours
        for key, field in kind.model_fields.items()
        if not field.description
    }
    assert not silent
