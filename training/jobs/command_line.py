"""The command line of every job, made of its configuration class.

    python -m training.train_dpo --config training/configs/mini_dpo.yaml --lr 3e-4 --resume
    python -m training.win_rates --config ... --adapters.sft runs/mini/sft/adapter.safetensors

`--help` shows each key's type, default and meaning. A value of a mapping is given as `--key.name
value`, on top of the file's, or the whole mapping as json. What a job does not read is refused.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import traceback
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from training.jobs.configuration import Configuration, ConfigurationT, read_configuration, read_file
from training.jobs.stopping import ended_cleanly

ROOT = Path(__file__).resolve().parents[2]
OURS = ("training", "ppd_model")


def parse_command_line(
    kind: type[ConfigurationT],
    argv: Sequence[str] | None,
    description: str | None,
    *,
    resumable: bool = True,
    unread: Collection[str] = (),
    positional: str | None = None,
) -> tuple[ConfigurationT, bool]:
    """`--config FILE`, `--resume`, and `--key value` for every key; returns (config, resume).

    resumable: whether the job knows `--resume`. unread: keys that may stand in the file, which
    serves another job too, and that are refused on the command line. positional: a key that is
    given without its name. Exits with status 2 and a line on standard error when something is
    wrong.
    """
    parser = _Parser(
        prog=_program(),
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", type=Path, metavar="path", help="Yaml file of the values below."
    )
    if resumable:
        parser.add_argument("--resume", action="store_true", help="Continue an interrupted run.")
    fields = {key: field for key, field in kind.model_fields.items() if key not in unread}
    for key, field in fields.items():
        _add_option(parser, key, field, positional=key == positional)
    given, rest = parser.parse_known_args(argv)
    arguments = vars(given)
    path: Path | None = arguments.pop("config")
    resume: bool = arguments.pop("resume", False)
    try:
        overrides = {
            key: _value(fields[key].annotation, text)
            for key, text in arguments.items()
            if text is not None
        }
        _refuse_unread(rest, unread, resumable)
        for key, values in _mapping_values(rest, fields).items():
            below = overrides.get(key)
            if below is None and path is not None:
                below = read_file(path).get(key)
            overrides[key] = {**(below or {}), **values}
        config = read_configuration(kind, path, overrides)
        for key in overrides.keys() & config.unread():
            raise ValueError(f"--{key}: with the other values as they are, nothing reads it")
    except (OSError, ValueError) as error:
        exit_with(str(error))
    return config, resume


class _Parser(argparse.ArgumentParser):
    """What is wrong in one line, without the usage, which may be a page."""

    def error(self, message: str) -> NoReturn:
        exit_with(message)


def run_job(
    job: Callable[..., object],
    kind: type[Configuration],
    description: str | None,
    argv: Sequence[str] | None = None,
    **options: Any,
) -> None:
    """Run a job from the shell with what its command line says, and --resume where it takes that.

    options: as `parse_command_line` has them.
    """
    resumable = "resume" in inspect.signature(job).parameters

    def main() -> None:
        config, resume = parse_command_line(kind, argv, description, resumable=resumable, **options)
        with ended_cleanly("what was finished is kept; --resume goes on" if resumable else "ended"):
            job(config, resume) if resumable else job(config)

    run_command(main)


def run_command(main: Callable[[], None]) -> None:
    """Run a job from the shell: what its user can mend is one line and exit status 2.

    That is a file which cannot be read or written, and a ValueError that this code raised; any
    other error keeps its traceback.
    """
    try:
        main()
    except OSError as error:
        exit_with(str(error))
    except ValueError as error:
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename).resolve()
        if not any(raised_in.is_relative_to(ROOT / name) for name in OURS):
            raise
        exit_with(str(error))


def exit_with(problem: str) -> NoReturn:
    """End the process with status 2 and the problem in a line on standard error."""
    print(f"{_program()}: error: {' '.join(problem.split())}", file=sys.stderr)
    raise SystemExit(2)


def _program() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else "python -m training"


def _add_option(
    parser: argparse.ArgumentParser, key: str, field: FieldInfo, *, positional: bool
) -> None:
    meaning = " ".join((field.description or "").split())
    shown = _shown(field.get_default(call_default_factory=True))
    default = "required" if field.is_required() else f"default: {shown}"
    help_text = f"{meaning} ({default})".lstrip().replace("%", "%%")
    if positional:
        parser.add_argument(key, nargs="+", help=help_text)
        return
    is_flag = field.annotation is bool
    parser.add_argument(
        *dict.fromkeys((f"--{key}", f"--{key.replace('_', '-')}")),
        dest=key,
        metavar=_type_name(field.annotation),
        help=help_text,
        nargs="?" if is_flag else None,
        const="true" if is_flag else None,
    )


def _type_name(annotation: Any) -> str:
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "|".join(str(value) for value in inside)
    if origin in (Union, types.UnionType):
        return "|".join(_type_name(each) for each in inside)
    if origin is tuple:
        each = [_type_name(one) for one in inside if one is not Ellipsis]
        return f"[{', '.join(each)}{', ...' if Ellipsis in inside else ''}]"
    if _is_mapping(annotation):
        return f"{{{': '.join(_type_name(each) for each in inside)}}}"
    return "null" if annotation is type(None) else getattr(annotation, "__name__", "value").lower()


def _shown(default: Any) -> str:
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    if isinstance(default, tuple | list):
        return f"[{', '.join(_shown(each) for each in default)}]"
    return str(default)


def _is_mapping(annotation: Any) -> bool:
    origin = get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _value(annotation: Any, given: str | list[str]) -> Any:
    """What was typed as yaml, where that suits the key's type; else as it was typed."""
    if isinstance(given, list):
        return given
    try:
        loaded = yaml.safe_load(given)
        TypeAdapter[Any](annotation).validate_python(loaded)
    except (yaml.YAMLError, ValidationError):
        return given
    return loaded


def _refuse_unread(rest: Sequence[str], unread: Collection[str], resumable: bool) -> None:
    for word in rest:
        name = word.removeprefix("--").split("=")[0].replace("-", "_")
        if word.startswith("--") and (name in unread or (name == "resume" and not resumable)):
            raise ValueError(f"{word.split('=')[0]}: this job does not read it")


def _mapping_values(
    rest: Sequence[str], fields: Mapping[str, FieldInfo]
) -> dict[str, dict[str, Any]]:
    """The `--key.name value` pairs. Raises ValueError for words that are none."""
    found: dict[str, dict[str, Any]] = {}
    words = list(rest)
    while words:
        word = words.pop(0)
        option, equals, value = word.partition("=")
        key, dot, name = option.removeprefix("--").partition(".")
        key = key.replace("-", "_")
        known = key in fields and _is_mapping(fields[key].annotation)
        if not (option.startswith("--") and dot and name and known):
            raise ValueError(f"unrecognized arguments: {' '.join([word, *words])}")
        if not equals:
            if not words:
                raise ValueError(f"{word}: expected a value")
            value = words.pop(0)
        of_values = get_args(fields[key].annotation)[1]
        found.setdefault(key, {})[name] = _value(of_values, value)
    return found
