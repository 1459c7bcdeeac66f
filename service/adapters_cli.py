"""`ppd adapters`: which adapter is served. A running service takes it up when it starts again."""

from pathlib import Path
from typing import Annotated

import typer

from service.infra.adapters import AdapterFolder
from service.settings import Settings, read

adapters = typer.Typer(no_args_is_help=True, help="Adapters: put one into service, or go back.")

DataDir = Annotated[Path | None, typer.Option(help="Where everything is kept (PPD_DATA_DIR).")]


@adapters.command()
def activate(
    adapter: Annotated[str, typer.Argument(help="A file, or a version that `list` shows.")],
    data_dir: DataDir = None,
) -> None:
    """Serve this adapter from the next start on; one that does not fit is refused."""
    from service.worker.engine import check_adapter

    settings = _settings(data_dir)
    folder = AdapterFolder(settings.adapters_dir)
    path = folder.find(adapter) or Path(adapter)
    try:
        base_model, encoder_id = check_adapter(
            settings.preset,
            settings.weights_dir,
            path,
            encoder_place=settings.encoder_place,
            prompt_variant=settings.prompt_variant,
            decoding=settings.decoding,
        )
        version = folder.activate(path)
    except (ValueError, OSError) as error:
        raise _refuse(str(error)) from error
    typer.echo(f"adapter {version} for {base_model} and {encoder_id}; start the service again")


@adapters.command("list")
def list_adapters(data_dir: DataDir = None) -> None:
    """Show the adapters that were ever activated here."""
    try:
        kept = AdapterFolder(_settings(data_dir).adapters_dir).kept()
    except ValueError as error:
        raise _refuse(str(error)) from error
    for one in kept:
        typer.echo(f"{one.version}  {'active' if one.active else '      '}  {one.path}")


@adapters.command()
def deactivate(data_dir: DataDir = None) -> None:
    """Serve the shipped adapter again, from the next start on."""
    if not AdapterFolder(_settings(data_dir).adapters_dir).deactivate():
        raise _refuse("the shipped adapter is the one in service")
    typer.echo("the shipped adapter; start the service again")


def _settings(data_dir: Path | None) -> Settings:
    try:
        return read(data_dir=data_dir)
    except ValueError as error:
        raise _refuse(str(error)) from error


def _refuse(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(1)
