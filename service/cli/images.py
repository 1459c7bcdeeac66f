"""`ppd images`: what lies in the image store."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from service.actions.leftovers import sweep_orphans
from service.infra.sql.tables import now
from service.settings import Settings, read
from service.wiring import opened_parts, prepare

images = typer.Typer(no_args_is_help=True, help="Pictures in the folder or the bucket.")


@images.callback()
def _images() -> None:
    """Keep `sweep` a command of its own name."""


@images.command()
def sweep(
    older_than_hours: Annotated[
        int, typer.Option(min=1, help="Younger ones may be of a job that has not ended.")
    ] = 24,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where everything is kept (PPD_DATA_DIR).")
    ] = None,
) -> None:
    """Delete pictures that no row points to. A running service does this once a day by itself."""
    try:
        settings = read(data_dir=data_dir)
        removed = asyncio.run(_sweep(settings, timedelta(hours=older_than_hours)))
    except (ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{removed} pictures removed")


async def _sweep(settings: Settings, age: timedelta) -> int:
    await prepare(settings)
    async with opened_parts(settings) as parts:
        return await sweep_orphans(parts, now() - age)
