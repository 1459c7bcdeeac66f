"""Configuration of the offline jobs: one yaml file, single values overridden on the command line.

    python -m training.train_dpo --config training/configs/mini_dpo.yaml --lr 3e-4 --resume

A configuration is a frozen pydantic model; unknown keys and wrong types are refused with the key
named. What a job ran with, and the commit it ran at, is written beside its outputs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class Configuration(BaseModel):
    """Base of every job's configuration: immutable, and no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


ConfigurationT = TypeVar("ConfigurationT", bound=Configuration)


def read_configuration(
    kind: type[ConfigurationT], path: Path | None, overrides: dict[str, Any]
) -> ConfigurationT:
    """The yaml file's values with the overrides on top.

    Raises ValueError naming the file and each key that is unknown, missing or of the wrong type.
    """
    values: dict[str, Any] = {}
    if path is not None:
        loaded = yaml.safe_load(path.read_text())
        if not isinstance(loaded, dict):
            raise ValueError(f"{path}: expected a mapping of keys to values")
        values.update(loaded)
    values.update(overrides)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors()
        )
        raise ValueError(f"{path or kind.__name__}: {problems}") from error


def parse_command_line(
    kind: type[ConfigurationT],
    argv: Sequence[str] | None,
    description: str | None,
    *,
    file_required: bool = True,
) -> tuple[ConfigurationT, bool]:
    """`--config FILE`, `--resume`, and `--key value` for every key; returns (config, resume).

    Exits with a message on standard error, as argparse does, when something is wrong.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=file_required)
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    for key in kind.model_fields:
        parser.add_argument(f"--{key}", f"--{key.replace('_', '-')}", dest=key, metavar="VALUE")
    arguments = vars(parser.parse_args(argv))
    path: Path | None = arguments.pop("config")
    resume: bool = arguments.pop("resume")
    overrides = {
        key: yaml.safe_load(value) if _is_yaml(value) else value
        for key, value in arguments.items()
        if value is not None
    }
    try:
        return read_configuration(kind, path, overrides), resume
    except (OSError, ValueError) as error:
        parser.error(str(error))


def save_resolved(config: Configuration, folder: Path) -> None:
    """Write resolved.json: every value the job runs with, and the commit of the code."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"config": config.model_dump(mode="json"), "commit": git_commit()}
    (folder / "resolved.json").write_text(json.dumps(record, indent=2) + "\n")


def git_commit() -> str:
    """The commit of the working tree, with "+changes" when tracked files differ from it.

    "unknown" outside a git checkout.
    """
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+changes" if changed else "")


def _is_yaml(value: str) -> bool:
    """Numbers, booleans, null and lists are read as yaml; any other text is kept as typed."""
    try:
        return not isinstance(yaml.safe_load(value), str | dict)
    except yaml.YAMLError:
        return False
