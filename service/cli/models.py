"""`ppd models`: fetch the published weights of a preset, and check what is on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.settings import read

if TYPE_CHECKING:
    import torch

    from ppd_model.presets import Preset

models = typer.Typer(no_args_is_help=True, help="Published weights of the larger presets.")

PresetName = Annotated[str, typer.Argument(help="stable-cascade-1b or stable-cascade, +options.")]
Folder = Annotated[Path | None, typer.Option("--dir", help="Where they lie (PPD_WEIGHTS_DIR).")]
Part = Annotated[list[str] | None, typer.Option(help="Only this part; may be repeated.")]
Dtype = Annotated[str, typer.Option(help="bfloat16, or float32 at twice the size.")]


@models.command()
def pull(
    preset: PresetName,
    folder: Folder = None,
    part: Part = None,
    dtype: Dtype = "bfloat16",
    revision: Annotated[
        list[str] | None,
        typer.Option(help="REPOSITORY=COMMIT, in the place of the preset's; may be repeated."),
    ] = None,
) -> None:
    """Fetch a preset's weights, and write their commits and sha256 down in ppd-models.json."""
    from ppd_model.files.hub import HuggingFaceHub
    from ppd_model.files.pull import pull as fetch

    lock = fetch(
        _preset(preset),
        _folder(folder),
        HuggingFaceHub(),
        dtype=_dtype(dtype),
        parts=part or (),
        revisions=_revisions(revision or []),
        on_file=lambda name, size: typer.echo(f"{size / 1e9:8.3f} GB  {name}"),
    )
    for hub_id, locked in lock.repositories.items():
        typer.echo(f"{hub_id} at {locked.revision}: commit {locked.commit}")


@models.command()
def verify(
    preset: PresetName,
    folder: Folder = None,
    part: Part = None,
    dtype: Dtype = "bfloat16",
    hashes: Annotated[bool, typer.Option(help="Also read all contents.")] = True,
) -> None:
    """Check files, sha256, key names and shapes; exit 1 when something is wrong."""
    from ppd_model.verify import verify_part

    chosen, where, precision = _preset(preset), _folder(folder), _dtype(dtype)
    unknown = sorted(set(part or ()) - chosen.published.keys())
    if unknown:
        raise ValueError(f"{preset} has no parts {unknown}; it has {list(chosen.published)}")
    faults = 0
    for name in part or chosen.published:
        try:
            found = verify_part(chosen, name, where, precision, hashes=hashes)
        except (ValueError, OSError) as error:
            typer.echo(f"FAULT   {name}: {error}")
            faults += 1
            continue
        commit = found.commit or "not pulled by ppd: no commit or sha256 to compare with"
        typer.echo(
            f"ok      {name}: {found.keys} keys, {found.parameters:,} values, "
            f"{found.size_bytes / 1e9:.3f} GB, {commit}"
        )
    if faults:
        raise typer.Exit(1)


def _preset(name: str) -> "Preset":
    from ppd_model.presets import get_preset

    preset = get_preset(name)
    if not preset.published:
        raise ValueError(f"the weights of {name} are shipped with the code")
    return preset


def _folder(given: Path | None) -> Path:
    folder = given or read().weights_dir
    if folder is None:
        raise ValueError("name a folder: --dir, or PPD_WEIGHTS_DIR")
    return folder


def _dtype(name: str) -> "torch.dtype":
    from ppd_model.published import generator_dtype

    return generator_dtype(name, "cpu")


def _revisions(given: list[str]) -> dict[str, str]:
    for entry in given:
        if entry.count("=") != 1 or not all(entry.split("=")):
            raise ValueError(f"{entry!r}: expected REPOSITORY=COMMIT")
    return dict(entry.split("=") for entry in given)
