"""Configuration of the offline jobs: one yaml file, single values given on top.

A configuration is a frozen pydantic model; unknown keys and wrong types are refused with the key
named. The line of text below a key is what the job's --help says of it (command_line.py). What a
job ran with, and the commit it ran at, is written beside its outputs.

A file may name the variables of VARIABLES, `${PPD_RUNS_DIR}/pairs`, so that each kind of thing has
one home on a machine and one file serves every size. PPD_OVERRIDES names a yaml file of values that
come before those of other files (docs/reproduce.md): patterns of file names to keys and values.

    "stable_cascade_*.yaml": {batch: 8}
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Mapping, Set
from fnmatch import fnmatch
from pathlib import Path
from string import Template
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from training.jobs.files import write_json

VARIABLES = {
    "PPD_PRESET": "stable-cascade-1b",
    "PPD_DEVICE": "cuda",
    "PPD_WEIGHTS_DIR": "weights",
    "PPD_DATASETS_DIR": "datasets",
    "PPD_RUNS_DIR": "runs",
}
"""What files may name, and what it stands for where the environment says nothing. The first three
are the service's settings, too."""
OVERRIDES = "PPD_OVERRIDES"


class Configuration(BaseModel):
    """Base of every job's configuration: immutable, and no unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    def unread(self) -> Set[str]:
        """Keys that nothing reads with the other values as they are: not for the command line."""
        return set()


ConfigurationT = TypeVar("ConfigurationT", bound=Configuration)


def read_file(path: Path, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The keys and values of a yaml file, its variables replaced, overrides on top.

    Raises ValueError, naming the file, where it holds no such, or another variable.
    """
    values = _mapping(path)
    overrides = environment.get(OVERRIDES)
    for pattern, own in (_mapping(Path(overrides)) if overrides else {}).items():
        if fnmatch(path.name, pattern):
            values |= own
    known = VARIABLES | {name: environment[name] for name in VARIABLES if environment.get(name)}
    try:
        return {key: _filled_in(value, known) for key, value in values.items()}
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: {error}: variables are {', '.join(VARIABLES)}") from error


def _filled_in(value: Any, variables: Mapping[str, str]) -> Any:
    """A value with the variables in its texts replaced."""
    if isinstance(value, str):
        return Template(value).substitute(variables)
    if isinstance(value, list):
        return [_filled_in(each, variables) for each in value]
    if isinstance(value, dict):
        return {key: _filled_in(each, variables) for key, each in value.items()}
    return value


def _mapping(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not yaml: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{path}: expected a mapping of keys to values")
    return loaded


def read_configuration(
    kind: type[ConfigurationT], path: Path | None, overrides: dict[str, Any]
) -> ConfigurationT:
    """The yaml file's values with the overrides on top.

    Raises ValueError naming the file and each key that is unknown, missing or of the wrong type.
    """
    values = {} if path is None else read_file(path)
    try:
        return kind.model_validate(values | overrides)
    except ValidationError as error:
        problems = "; ".join(
            ": ".join(filter(None, (".".join(map(str, item["loc"])), item["msg"])))
            for item in error.errors()
        ).replace("Value error, ", "")
        raise ValueError(f"{path}: {problems}" if path else problems) from error


def differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], ignored: Collection[str] = ()
) -> str:
    """Every key whose values are not the same, "KEY (THERE there, NOW now), ..."; "" for none."""
    return ", ".join(
        f"{key} ({found.get(key)!r} there, {wanted.get(key)!r} now)"
        for key in sorted((found.keys() | wanted.keys()) - set(ignored))
        if found.get(key) != wanted.get(key)
    )


def save_resolved(config: Configuration, folder: Path) -> None:
    """Write resolved.json: every value the job runs with, and the commit of the code."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"config": config.model_dump(mode="json"), "commit": git_commit()}
    write_json(folder / "resolved.json", record)


def git_commit() -> str:
    """The commit of the working tree, with "+changes" when tracked files differ from it.

    "unknown" outside a git checkout, and where the code is none of it: installed within another
    project's.
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
        git("ls-files", "--error-unmatch", Path(__file__).name)
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+changes" if changed else "")
